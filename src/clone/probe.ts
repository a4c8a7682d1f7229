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

export interface QemuFacts {
  /** Absolute path. */
  readonly binary: string;
  /** As in `QEMU 7.2.22`. */
  readonly version: string;
  /** See MachineOptions.readOnlyRam. */
  readonly readOnlyRam: boolean;
}

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
  if (cached !== undefined) return cached;
  const facts: QemuFacts = {
    binary,
    version: await askVersion(binary),
    readOnlyRam: (await ask(binary, ['-object', 'memory-backend-file,help'])).includes('rom='),
  };
  // Without a home to keep it in, or space, the next start asks again: no reason to fail.
  await writeCache(cache, { identity, ...facts }).catch(() => {});
  return facts;
}

async function writeCache(path: string, facts: QemuFacts & { identity: string }): Promise<void> {
  const temporary = `${path}.${process.pid}`;
  await writeFile(temporary, `${JSON.stringify(facts, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, path);
}

async function readCache(path: string, identity: string): Promise<QemuFacts | undefined> {
  try {
    const found = JSON.parse(await readFile(path, 'utf8')) as QemuFacts & { identity: string };
    if (found.identity !== identity) return undefined;
    return { binary: found.binary, version: found.version, readOnlyRam: found.readOnlyRam === true };
  } catch {
    return undefined;
  }
}

async function askVersion(binary: string): Promise<string> {
  const said = await ask(binary, ['--version']);
  const version = /version (\d+\.\d+\.\d+)/.exec(said)?.[1];
  if (version === undefined) throw new MayflyError('E_QEMU_MISSING', `${binary} does not tell its version`);
  return `QEMU ${version}`;
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
