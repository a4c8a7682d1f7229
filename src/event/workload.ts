/**
 * What is to run on the event: the customer's function as it is shipped into the clone, and how it is started.
 * `event/code.ts` collects the files from the caller's disk; nothing after it reads that disk again.
 */
import { canonicalJson, digestOf } from '../core/json.ts';
import type { Environment } from './environment.ts';

/** One file, folder or symbolic link of a function. Folders come before what is in them. */
export type FunctionEntry =
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly content: Buffer }
  | { readonly kind: 'folder'; readonly path: string; readonly mode: number }
  | { readonly kind: 'link'; readonly path: string; readonly mode: number; readonly target: string };
// `path` is relative to /function in the guest, with `/` between its parts and neither `.` nor `..` among them.

/** The function listens on a port, and the event is an HTTP request to it (event/http.ts); its answer is the result. */
export interface ServerPort {
  /** Told to the function as PORT. */
  readonly port: number;
  /** The result is the answer's body alone, as bytes. */
  readonly raw: boolean;
}

/** A handler in the image's warm language runtime; its result is the runtime's JSON envelope. */
export interface RuntimeWorkload {
  readonly kind: 'runtime';
  /** Absolute path in the guest, as in `/function/h.mjs`. */
  readonly handler: string;
  readonly entries: readonly FunctionEntry[];
  readonly env?: Environment;
  readonly server?: ServerPort;
}

/** A program with the event on stdin; its stdout is the result and exit status 0 means success. */
export interface ExecutableWorkload {
  readonly kind: 'executable';
  /** Program (absolute path in the guest) and its arguments. */
  readonly argv: readonly string[];
  /** stdout is passed on as bytes; otherwise it must be one JSON text. */
  readonly raw: boolean;
  readonly entries: readonly FunctionEntry[];
  readonly env?: Environment;
  readonly server?: ServerPort;
}

export type Workload = RuntimeWorkload | ExecutableWorkload;

/** Bytes of all files: they are written into the clone's memory. */
export function codeBytes(workload: Workload): number {
  return workload.entries.reduce((sum, entry) => sum + (entry.kind === 'file' ? entry.content.length : 0), 0);
}

/** What was shipped, for the evidence: enough to tell later whether some files are the ones that ran. */
export interface ShippedCode {
  /** `sha256:` and 64 hex digits over the listing (docs/FORMATS.md, "Evidence"). */
  readonly digest: string;
  readonly bytes: number;
  readonly files: number;
}

export function shippedCode(workload: Workload): ShippedCode {
  const listing = workload.entries.map((entry) => {
    const { kind, path, mode } = entry;
    if (kind === 'file') return { kind, path, mode, digest: digestOf(entry.content) };
    return kind === 'link' ? { kind, path, mode, target: entry.target } : { kind, path, mode };
  });
  const files = workload.entries.filter(({ kind }) => kind === 'file').length;
  return { digest: digestOf(canonicalJson(listing)), bytes: codeBytes(workload), files };
}
