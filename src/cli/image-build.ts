/** `mayfly image build`: reads the Mayflyfile and prints what has come of it. What it does is behind App.build(). */
import { stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { exitCodes, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { readFileAtMost } from './input.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { acceleratorOf } from './run.ts';
import { formatBytes } from './units.ts';

export interface BuildOptions {
  readonly fromDir?: string;
  readonly file?: string;
  readonly base?: string;
  readonly as: string;
  readonly accel: string;
  readonly allowUnsigned?: boolean;
  readonly json?: boolean;
}

export async function build(io: Io, options: BuildOptions): Promise<number> {
  const { as: name, json, allowUnsigned = false } = options;
  const { context, file } = await sourceOf(io, options);
  const found = await stat(context).catch(() => undefined);
  if (found?.isDirectory() !== true) throw new MayflyError('E_USAGE', `${context} is not a directory`);
  const accelerator = acceleratorOf(options.accel);
  const say = (step: string): void => io.err(paint(io.colour).dim(`mayfly: ${step} …\n`));
  const app = await io.openApp();
  const built = await app.build({ name, context, file, allowUnsigned, accelerator, signal: io.signal, say });
  const { envelope: { digest, manifest }, entries, bytes, layerBytes, notes, unchanged } = built;
  for (const note of notes) io.err(`mayfly: ${note}\n`);
  const tag = `${name}:latest`;
  if (json === true) {
    const { layers, command, inputs } = manifest;
    const size = { entries, bytes, layerBytes, layers: layers.length };
    printJson(io, { digest, tag, unchanged, ...size, command, inputs, notes });
  } else {
    const what = `${entries} files and folders, ${formatBytes(bytes)} stored as ${formatBytes(layerBytes)}`;
    io.out(`${tag} is ${digest} (${unchanged ? 'as before' : what})\n`);
  }
  return exitCodes.ok;
}

interface Source {
  readonly context: string;
  readonly file: { readonly text: string; readonly name: string };
}

async function sourceOf(io: Io, { fromDir, file, base }: BuildOptions): Promise<Source> {
  if (file === undefined) {
    if (fromDir === undefined) throw new MayflyError('E_USAGE', 'nothing to build: name a directory or a Mayflyfile');
    const text = `FROM ${base ?? 'scratch'}\nCOPY . /\n`;
    return { context: resolve(fromDir), file: { text, name: fromDir } };
  }
  if (base !== undefined) throw new MayflyError('E_USAGE', '--base is what FROM of the Mayflyfile says');
  const bytesMax = limits.buildFileBytesMax + 1;
  const bytes = await readFileAtMost(file, { bytesMax, signal: io.signal }).catch((cause: unknown) => {
    if (cause instanceof MayflyError) throw cause;
    throw new MayflyError('E_USAGE', `${file}: cannot be read`, { cause });
  });
  return { context: resolve(fromDir ?? dirname(file)), file: { text: bytes.toString('utf8'), name: file } };
}
