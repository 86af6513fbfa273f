// Which addresses a webhook may be sent to. Endpoints are named by people outside, so nothing that only this machine or its
// network can reach is asked unless a setting allows it: the registries of IANA for special purposes (RFC 6890), and what
// carries an IPv4 address inside an IPv6 one.
import { BlockList, isIP } from 'node:net';
import { OperationalError } from '../../runtime/errors.ts';

const special4 = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24'],
  ...['192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24'],
  ...['224.0.0.0/4', '240.0.0.0/4'],
];
/** Of 2000::/3, which alone is given out. */
const special6 = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20'];

const special = listOf([...special4, ...special6]);
const global6 = listOf(['2000::/3']);

export type AddressRule = (address: string) => boolean;

/** `allowed`: addresses and networks (10.1.0.0/16) that may be asked though they are special. */
export function addressRule(allowed: readonly string[]): AddressRule {
  const exceptions = listOf(allowed);
  return address => {
    const family = isIP(address);
    if (family === 0) return false;
    if (family === 4) return exceptions.check(address, 'ipv4') || !special.check(address, 'ipv4');
    // ::ffff:10.0.0.1 is 10.0.0.1 to BlockList, as it is to the system.
    if (exceptions.check(address, 'ipv6')) return true;
    return global6.check(address, 'ipv6') && !special.check(address, 'ipv6');
  };
}

function listOf(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', prefix] = network.split('/');
    const family = isIP(address);
    const bits = prefix === undefined ? (family === 4 ? 32 : 128) : Number(prefix);
    if (family === 0 || !Number.isInteger(bits) || bits < 0 || bits > (family === 4 ? 32 : 128)) {
      throw new OperationalError(`deliver.webhook.allow has ${JSON.stringify(network)}`, {
        code: 'BAD_SETTING',
        hint: 'give addresses and networks, such as 127.0.0.1 or 10.1.0.0/16',
      });
    }
    list.addSubnet(address, bits, family === 4 ? 'ipv4' : 'ipv6');
  }
  return list;
}
