/** `mayfly images`, `mayfly version`: what is here, without starting a VM. */
import { printJson } from './io.ts';
import type { Io } from './io.ts';
import { formatBytes } from './units.ts';

export interface ListOptions {
  readonly json?: boolean;
}

export async function images(io: Io, { json }: ListOptions): Promise<number> {
  const app = await io.openApp();
  const list = (await app.repository()).images.list();
  if (json === true) {
    printJson(io, list.map(({ path: _path, manifest: _manifest, ...image }) => image));
    return 0;
  }
  const rows = list.map(({ name, digest, bytes, runtime, description }) => [
    name, digest.slice(7, 19), formatBytes(bytes), runtime === null ? 'executables' : 'warm runtime', description,
  ]);
  io.out(table([['IMAGE', 'DIGEST', 'SIZE', 'RUNS', 'DESCRIPTION'], ...rows]));
  return 0;
}

export async function version(io: Io, { json }: ListOptions): Promise<number> {
  const app = await io.openApp();
  const facts = {
    mayfly: io.version,
    node: process.versions.node,
    qemu: await app.qemu().then((qemu) => qemu.version, () => null),
    kernel: await app.repository().then((repository) => repository.kernel.digest, () => null),
    initramfs: await app.repository().then((repository) => repository.initramfs.digest, () => null),
    bridge: 1,
  };
  if (json === true) printJson(io, facts);
  else io.out(table(Object.entries(facts).map(([name, value]) => [name, String(value ?? 'not set up')])));
  return 0;
}

export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd((widths[column] ?? 0) + 2))).join('');
  return `${rows.map(line).join('\n')}\n`;
}
