/** Figures as the benchmarks print them: medians with p50 and p99, n stated, a table that a person can read. */

export interface Figures {
  readonly n: number;
  readonly p50: number;
  readonly p99: number;
  readonly min: number;
  readonly max: number;
}

export function figures(values: readonly number[]): Figures {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
  return { n: sorted.length, p50: at(0.5), p99: at(0.99), min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN };
}

export function printTable(title: string, head: readonly string[], rows: readonly (readonly string[])[]): void {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join('   ');
  const rule = '-'.repeat(widths.reduce((sum, width) => sum + width + 3, -3));
  process.stdout.write(`\n${title}\n${[line(head), rule, ...rows.map(line)].join('\n')}\n`);
}

export function row(what: string, values: readonly number[], unit = 'ms'): string[] {
  const { n, p50, p99, min, max } = figures(values);
  const shown = (value: number): string => `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
  return [what, String(n), shown(p50), shown(p99), shown(min), shown(max)];
}

export const timeHead = ['', 'n', 'p50', 'p99', 'min', 'max'];
