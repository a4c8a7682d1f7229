/** What every step of set-up works with. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { canonicalJson, digestOf } from '../../src/core/json.ts';
import type { Artefact, Meta, Store } from '../../src/image/store.ts';

export interface Workshop {
  /** The checkout: sources of agent, shims and image descriptions. */
  readonly root: string;
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  readonly store: Store;
  /** Empty folder in `home` that is removed when set-up ends, however it ends. */
  readonly scratch: string;
  readonly signal: AbortSignal;
  /** ISO 8601 of now, for people. */
  readonly now: () => string;
  /** Node 24 that becomes part of the image `node`: absolute path of the ELF file. */
  readonly nodeBinary: string;
}

/** Tells the person in front of it what a step is doing. */
export type Say = (what: string) => void;

/** One thing to have. Steps run in order; a later one may rest on artefacts of an earlier one. */
export interface Step {
  readonly name: string;
  readonly title: string;
  /** Artefacts that it makes; none for `packages`. */
  readonly makes: readonly string[];
  /** Digest over everything that the artefacts are built from, cheap to compute. */
  inputs(workshop: Workshop): Promise<string>;
  /** Leaves `makes` in the store, each with these inputs. */
  build(workshop: Workshop, inputs: string, say: Say): Promise<void>;
}

/** Digest over named values and over files of the checkout (paths relative to it; folders with all that is in them). */
export async function inputsOf(
  root: string,
  values: Meta,
  paths: readonly string[],
): Promise<string> {
  const files: Record<string, string> = {};
  for (const path of paths) await digestInto(files, root, path);
  return digestOf(canonicalJson({ values, files }));
}

async function digestInto(files: Record<string, string>, root: string, path: string): Promise<void> {
  const full = join(root, path);
  const entries = await readdir(full, { withFileTypes: true }).catch(() => undefined);
  if (entries === undefined) {
    files[path] = createHash('sha256').update(await readFile(full)).digest('hex');
    return;
  }
  for (const entry of entries) {
    if (!entry.name.startsWith('.')) await digestInto(files, root, join(path, entry.name));
  }
}

/** An artefact of an earlier step. */
export async function need(workshop: Workshop, name: string): Promise<Artefact> {
  const artefact = await workshop.store.find(name);
  if (artefact === undefined) throw new Error(`the step that makes ${name} has not run`);
  return artefact;
}
