// What all systems sign webhooks with.
export const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
