/**
 * Which QEMU is on this machine and what it can do. Features are probed, never derived from a version number; the
 * answer is cached for the binary's exact file, since asking costs two process starts.
 */
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { knownFlaws } from './known-bad.ts';
import type { KnownFlaw } from './known-bad.ts';

export interface QemuFacts {
  /** Absolute path. */
  readonly binary: string;
  /** As in `QEMU 7.2.22`. */
  readonly version: string;
  /** See MachineOptions.readOnlyRam. */
  readonly readOnlyRam: boolean;
  /** As in `Debian 1:7.2+dfsg-7+deb12u18`; empty for QEMU as its project released it. */
  readonly package: string;
  /** What hostile guests are known to break out of it through. */
  readonly flaws: readonly KnownFlaw[];
}

/** What is worth keeping: the list of flaws comes with Mayfly and may be a newer one next time. */
type ProbedFacts = Omit<QemuFacts, 'flaws'>;

const BINARY = 'qemu-system-x86_64';
const FOLDERS = ['/usr/local/bin', '/usr/bin', '/bin'];

/** Rejects with E_QEMU_MISSING. `folders` are looked through in order. */
export async function probeQemu(home: string, folders: readonly string[] = FOLDERS): Promise<QemuFacts> {
  const binary = folders.map((folder) => join(folder, BINARY)).find(isExecutable);
  if (binary === undefined) throw new MayflyError('E_QEMU_MISSING', `${BINARY} is in none of ${folders.join(', ')}`);
  const { size, mtimeMs } = await stat(binary);
  const identity = `${binary} ${size} ${mtimeMs}`;
  const cache = join(home, 'qemu.json');
  const cached = await readCache(cache, identity);
  if (cached !== undefined) return { ...cached, flaws: knownFlaws(cached.version) };
  const facts: ProbedFacts = {
    binary,
    ...(await askVersion(binary)),
    readOnlyRam: (await ask(binary, ['-object', 'memory-backend-file,help'])).includes('rom='),
  };
  // Without a home to keep it in, or space, the next start asks again: no reason to fail.
  await writeCache(cache, { identity, ...facts }).catch(() => {});
  return { ...facts, flaws: knownFlaws(facts.version) };
}

async function writeCache(path: string, facts: ProbedFacts & { identity: string }): Promise<void> {
  const temporary = `${path}.${process.pid}`;
  await writeFile(temporary, `${JSON.stringify(facts, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, path);
}

async function readCache(path: string, identity: string): Promise<ProbedFacts | undefined> {
  try {
    const found = JSON.parse(await readFile(path, 'utf8')) as ProbedFacts & { identity: string };
    if (found.identity !== identity) return undefined;
    // Written by an earlier Mayfly, which did not ask for it.
    if (typeof found.package !== 'string') return undefined;
    const { binary, version, package: packaged } = found;
    return { binary, version, readOnlyRam: found.readOnlyRam === true, package: packaged };
  } catch {
    return undefined;
  }
}

async function askVersion(binary: string): Promise<Pick<QemuFacts, 'version' | 'package'>> {
  const said = await ask(binary, ['--version']);
  const [, version, packaged = ''] = /version (\d+\.\d+\.\d+)(?: \(([^)\n]+)\))?/.exec(said) ?? [];
  if (version === undefined) throw new MayflyError('E_QEMU_MISSING', `${binary} does not tell its version`);
  return { version: `QEMU ${version}`, package: packaged };
}

async function ask(binary: string, args: readonly string[]): Promise<string> {
  try {
    const options = { timeout: limits.vmmStartMillisMax, maxBuffer: limits.qmpLineBytesMax };
    return (await promisify(execFile)(binary, args, options)).stdout;
  } catch (cause) {
    throw new MayflyError('E_QEMU_MISSING', `${binary} cannot be run: ${(cause as Error).message}`, { cause });
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
