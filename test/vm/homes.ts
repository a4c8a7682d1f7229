/** Homes of their own for tests that fill a repository, and the real command line in them. */
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { home } from './rig.ts';

const program = join(import.meta.dirname, '../../bin/mayfly');

export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface OwnHome {
  /** Holds the home and what a test puts beside it. */
  readonly folder: string;
  readonly home: string;
  mayfly(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Ended>;
  remove(): Promise<void>;
}

/** With kernel, initramfs, probe and these images of set-up. */
export async function ownHome(...images: readonly string[]): Promise<OwnHome> {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-home-'));
  const own = join(folder, 'home');
  await mkdir(join(own, 'artefacts'), { recursive: true });
  // VMMs have uids of their own and pass through it.
  await chmod(folder, 0o711);
  for (const name of ['kernel', 'initramfs', 'probe', ...images.map((image) => `image-${image}`)]) {
    const record = join('artefacts', `${name}.json`);
    const { digest } = JSON.parse(await readFile(join(home, record), 'utf8')) as { digest: string };
    const hex = digest.slice('sha256:'.length);
    const blob = join('store', 'sha256', hex.slice(0, 2), hex);
    await mkdir(dirname(join(own, blob)), { recursive: true });
    await cp(join(home, blob), join(own, blob));
    await cp(join(home, record), join(own, record));
  }
  for (const name of images.length === 0 ? [] : ['images', 'keys']) {
    await cp(join(home, name), join(own, name), { recursive: true });
  }
  return {
    folder,
    home: own,
    mayfly: (args, env = {}) => mayflyIn(own, args, env),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

export async function mayflyIn(at: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return await new Promise((resolve) => {
    const options = { env: { ...process.env, MAYFLY_HOME: at, ...env }, timeout: 250_000 };
    execFile(program, args, options, (error, out, err) => resolve({ code: Number(error?.code ?? 0), out, err }));
  });
}
