// Plots for reports: bars with their spread, a line over time, a flame graph. Plain SVG text, no library; a white
// ground, so that they can be read on any page.

export interface Bar {
  readonly name: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
}

export interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly bars: readonly Bar[];
}

const colours: Readonly<Record<string, string>> = {
  millrace: '#2c6e9b',
  kafka: '#b5651d',
  'kafka-flush': '#d9a066',
  rows: '#8a8a8a',
  copy: '#5b8c5a',
  'millrace-plain': '#6fa8c9',
  debezium: '#b5651d',
  pg_recvlogical: '#5b8c5a',
};
const heading = 'font-size="13" font-weight="bold"';
const font = 'font-family="Helvetica, Arial, sans-serif"';

/** One panel under another, each with a scale of its own that begins at zero. */
export function bars(panels: readonly Panel[]): string {
  const [width, labelWidth, valueWidth, rowHeight, titleHeight] = [760, 110, 190, 24, 34];
  const scaleWidth = width - labelWidth - valueWidth;
  const parts: string[] = [];
  let y = 0;
  for (const { title, unit, bars: list } of panels) {
    const most = Math.max(...list.map(({ max }) => max), Number.MIN_VALUE);
    const x = (value: number): number => labelWidth + (value / most) * scaleWidth;
    parts.push(text(8, y + 22, `${title} (${unit})`, heading));
    y += titleHeight;
    for (const { name, value, min, max } of list) {
      const middle = y + rowHeight / 2;
      parts.push(text(8, middle + 4, name));
      parts.push(rect(labelWidth, y + 4, x(value) - labelWidth, rowHeight - 8, colours[name] ?? '#666666'));
      parts.push(line(x(min), middle, x(max), middle), line(x(min), middle - 4, x(min), middle + 4));
      parts.push(line(x(max), middle - 4, x(max), middle + 4));
      parts.push(text(width - valueWidth + 14, middle + 4, `${readable(value)}  (${readable(min)}–${readable(max)})`));
      y += rowHeight;
    }
    y += 8;
  }
  return document(width, y, parts);
}

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export function lines(title: string, xUnit: string, yUnit: string, series: readonly Series[]): string {
  const [width, height, left, right, top, bottom] = [760, 320, 60, 20, 40, 40];
  const all = series.flatMap(({ points }) => points);
  const xMost = Math.max(...all.map(([x]) => x), Number.MIN_VALUE);
  const yMost = Math.max(...all.map(([, y]) => y), Number.MIN_VALUE) * 1.05;
  const x = (value: number): number => left + (value / xMost) * (width - left - right);
  const y = (value: number): number => height - bottom - (value / yMost) * (height - top - bottom);
  const parts = [text(8, 22, `${title} (${yUnit})`, heading), line(left, y(0), width - right, y(0))];
  for (let i = 0; i <= 4; i++) {
    const value = (yMost * i) / 4;
    parts.push(text(8, y(value) + 4, readable(value)), line(left, y(value), width - right, y(value), '#dddddd'));
    if (i < 4) parts.push(text(x((xMost * i) / 4) - 8, height - 16, readable((xMost * i) / 4)));
  }
  parts.push(text(width - 4, height - 16, `${readable(xMost)} ${xUnit}`, 'font-size="12" text-anchor="end"'));
  series.forEach(({ name, points }, i) => {
    const colour = Object.values(colours)[i % Object.keys(colours).length]!;
    const path = points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(' ');
    parts.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`);
    parts.push(rect(left + 10 + i * 170, 30, 10, 10, colour), text(left + 24 + i * 170, 39, name));
  });
  return document(width, height, parts);
}

export interface Frame {
  readonly name: string;
  readonly value: number;
  readonly children: readonly Frame[];
}

/** Roots at the bottom; widths are shares of the root's value, and a frame's title tells its own. */
export function flameGraph(title: string, root: Frame): string {
  const [width, rowHeight, least] = [1200, 17, 0.0008];
  const parts: string[] = [];
  const depthOf = (frame: Frame): number =>
    1 + Math.max(0, ...frame.children.filter(({ value }) => value / root.value >= least).map(depthOf));
  const height = depthOf(root) * rowHeight + 44;
  const draw = (frame: Frame, left: number, depth: number): void => {
    const share = frame.value / root.value;
    if (share < least) return;
    const frameWidth = share * width;
    const y = height - 10 - (depth + 1) * rowHeight;
    const label = frameWidth > 30 ? text(left + 3, y + 12, cut(frame.name, frameWidth / 6.2), 'font-size="10"') : '';
    parts.push(
      `<g><title>${escaped(`${frame.name}: ${(share * 100).toFixed(1)} %`)}</title>` +
        `${rect(left, y, Math.max(frameWidth - 0.5, 0.3), rowHeight - 1, warmColour(frame.name))}${label}</g>`,
    );
    let at = left;
    for (const child of frame.children) {
      draw(child, at, depth + 1);
      at += (child.value / root.value) * width;
    }
  };
  draw(root, 0, 0);
  return document(width, height, [text(8, 22, title, heading), ...parts]);
}

/** Three digits, with k and M. */
export function readable(value: number): string {
  if (value < 0) return `-${readable(-value)}`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)} k`;
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** Steady for a name, between yellow and red. */
function warmColour(name: string): string {
  let hash = 7;
  for (const character of name) hash = (hash * 31 + character.charCodeAt(0)) % 1000;
  return `hsl(${(hash % 45) + 8}, 75%, ${62 + (hash % 13)}%)`;
}

function document(width: number, height: number, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">
<rect width="100%" height="100%" fill="white"/>
${parts.join('\n')}
</svg>
`;
}

const rect = (x: number, y: number, width: number, height: number, fill: string): string =>
  `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${Math.max(0, width).toFixed(1)}" height="${height}" fill="${fill}"/>`;

const line = (x1: number, y1: number, x2: number, y2: number, stroke = '#333333'): string =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="${stroke}"/>`;

const text = (x: number, y: number, words: string, style = 'font-size="12"'): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${font} fill="#222222" ${style}>${escaped(words)}</text>`;

const cut = (words: string, most: number): string =>
  words.length <= most ? words : `${words.slice(0, Math.max(1, Math.floor(most) - 1))}…`;

const escaped = (words: string): string =>
  words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
