/**
 * The second pass: everything that the index says, written as one archive whose every name, mode and kind is ours, into
 * the program that makes a file system of it. Folders come first, then links, then content in the order of the layers.
 */
import { spawn } from 'node:child_process';
import { pack } from 'tar-stream';
import type { Header, Pack } from 'tar-stream';
import { MayflyError } from '../../core/errors.ts';
import { limits } from '../../core/limits.ts';
import { corrupt } from './documents.ts';
import { drained } from './flow.ts';
import { readLayer } from './layer.ts';
import type { Layer } from './layer.ts';
import type { Plan } from './plan.ts';

/** Writes a squashfs file system to `file`. Rejects as `readLayer` does, and with E_SETUP_MISSING. */
export async function packPlan(plan: Plan, layers: readonly Layer[], file: string, signal: AbortSignal): Promise<void> {
  const archive = pack();
  const packer = startPacker(file, lastChange(plan), signal);
  const writing = writePlan(archive, plan, layers, signal);
  writing.catch((thrown: Error) => archive.destroy(thrown));
  try {
    for await (const chunk of archive) {
      if (!packer.stdin.write(chunk)) await drained(packer.stdin);
    }
    await writing;
    packer.stdin.end();
    await packer.ended;
  } catch (thrown) {
    packer.kill();
    await packer.ended.catch(() => {});
    // What the layers were found to be matters more than what came of it downstream.
    await writing;
    throw thrown;
  }
}

/** lz4: a clone decompresses what it reads, under TCG with a tenth of the speed. Same archive, same bytes. */
const PACKER = [
  '-quiet',
  '-no-progress',
  '-exit-on-error',
  '-comp',
  'lz4',
  '-no-xattrs',
  '-all-root',
  '-root-mode',
  '755',
  '-reproducible',
  '-mem',
  `${limits.ociPackMiB}M`,
  '-force',
];

/** Seconds since 1970 of the youngest entry, the age that the file system itself gets. */
function lastChange(plan: Plan): number {
  let last = 0;
  for (const { mtime } of plan.folders) last = Math.max(last, mtime);
  for (const { mtime } of plan.symlinks) last = Math.max(last, mtime);
  for (const layer of plan.contents.values()) for (const { mtime } of layer.values()) last = Math.max(last, mtime);
  return last;
}

function startPacker(file: string, seconds: number, signal: AbortSignal) {
  // sqfstar 4.5.1 takes -root-time and gives the root the time of day all the same; this it does obey, for all times.
  const env = { SOURCE_DATE_EPOCH: `${seconds}` };
  const child = spawn('sqfstar', [...PACKER, file], { stdio: ['pipe', 'ignore', 'pipe'], signal, env });
  let words = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    words = (words + text).slice(-2000);
  });
  // A packer that has died says why with its status.
  child.stdin.on('error', () => {});
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', (cause) => {
      const interrupted = new MayflyError('E_INTERRUPTED', 'The import was interrupted.', { cause });
      const missing = new MayflyError('E_SETUP_MISSING', 'sqfstar of the package squashfs-tools could not be run.', {
        cause,
      });
      reject(signal.aborted ? interrupted : missing);
    });
    child.once('close', (status) => {
      if (status === 0) resolve();
      else if (/No space left/.test(words)) reject(new MayflyError('E_DISK_SPACE', `There is no space for ${file}.`));
      else reject(new MayflyError('E_INTERNAL', `sqfstar ended with status ${status}`, { detail: words }));
    });
  });
  ended.catch(() => {});
  return { stdin: child.stdin, ended, kill: () => void child.kill('SIGKILL') };
}

async function writePlan(archive: Pack, plan: Plan, layers: readonly Layer[], signal: AbortSignal): Promise<void> {
  for (const { path, mode, mtime } of plan.folders)
    await small(archive, { ...owned(path, mode, mtime), type: 'directory' });
  for (const { path, target, mtime } of plan.symlinks) {
    await small(archive, { ...owned(path, 0o777, mtime), type: 'symlink', linkname: target });
  }
  for (const { path, content } of plan.made) await small(archive, owned(path, 0o644, 0), content);
  const budget = { bytesLeft: limits.ociBytesMax };
  for (const [index, layer] of layers.entries()) {
    const wanted = plan.contents.get(index);
    if (wanted === undefined) continue;
    let missing = wanted.size;
    await readLayer(layer, budget, signal, async (item, ordinal) => {
      const content = wanted.get(ordinal);
      if (content === undefined || item.kind !== 'entry') return;
      const [first = '', ...others] = content.paths;
      if (item.entry.size !== content.size) throw corrupt(layer.name, 'it changed while it was read');
      await large(archive, { ...owned(first, content.mode, content.mtime), size: content.size }, item.content);
      for (const path of others) {
        await small(archive, { ...owned(path, content.mode, content.mtime), type: 'link', linkname: first });
      }
      missing -= 1;
    });
    if (missing > 0) throw corrupt(layer.name, 'it changed while it was read');
  }
  archive.finalize();
}

type OwnHeader = Partial<Header> & Pick<Header, 'name'>;

function owned(name: string, mode: number, mtime: number): OwnHeader {
  return { name, type: 'file', mode, mtime: new Date(mtime * 1000), uid: 0, gid: 0, uname: '', gname: '' };
}

async function small(archive: Pack, headers: OwnHeader, content?: Buffer): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const done = (cause?: Error | null): void => (cause ? reject(cause) : resolve());
    if (content === undefined) archive.entry({ ...headers, size: 0 }, done).end(undefined);
    else archive.entry(headers, content, done);
  });
}

async function large(archive: Pack, headers: OwnHeader, content: AsyncIterable<Buffer>): Promise<void> {
  let settle: (cause?: Error | null) => void = () => {};
  const done = new Promise<void>((resolve, reject) => {
    settle = (cause) => (cause ? reject(cause) : resolve());
  });
  const entry = archive.entry(headers, (cause) => settle(cause));
  for await (const chunk of content) {
    if (!entry.write(chunk)) await drained(entry);
  }
  entry.end(undefined);
  await done;
}
