/**
 * A version of a function: manifest, rules and files under one digest, so that the same folder is the same version and
 * a rollback is a pointer. On disk a folder named by the digest, whole or absent: `version.json`, whose SHA-256 is the
 * digest, lists every file with its own, and `code` has their bytes one after another. What is loaded was verified.
 */
import { rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { makeFolder, readAtMost, syncFolder, writeDurably } from '../core/files.ts';
import { canonicalJson, digestOf } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { packFunction } from '../event/code.ts';
import type { FunctionEntry, Workload } from '../event/workload.ts';
import { readRuleFiles } from '../rules/files.ts';
import { loadRules, requireRules } from '../rules/load.ts';
import type { RuleSet } from '../rules/rule.ts';
import { MANIFEST_FILE, parseManifest, requireManifest } from './manifest.ts';
import type { Manifest, Start } from './manifest.ts';

type ListedEntry =
  | {
      readonly kind: 'file';
      readonly path: string;
      readonly mode: number;
      readonly digest: string;
      readonly bytes: number;
    }
  | { readonly kind: 'folder'; readonly path: string; readonly mode: number }
  | { readonly kind: 'link'; readonly path: string; readonly mode: number; readonly target: string };

interface VersionRecord {
  readonly versionVersion: 1;
  readonly manifest: Manifest;
  readonly rules: readonly { readonly name: string; readonly text: string }[];
  readonly entries: readonly ListedEntry[];
}

/** A version in memory, ready to run. */
export interface FunctionVersion {
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
  readonly manifest: Manifest;
  readonly workload: Workload;
  readonly rules: RuleSet | undefined;
  /** Of all files. */
  readonly bytes: number;
}

export interface PackedVersion {
  readonly digest: string;
  readonly manifest: Manifest;
  readonly record: string;
  readonly code: Buffer;
}

/** Reads a folder with a mayfly.yaml. Rejects with E_MANIFEST_INVALID, E_RULES_INVALID, E_HANDLER_MISSING, E_CODE_*. */
export async function packVersion(folder: string): Promise<PackedVersion> {
  const manifestPath = join(folder, MANIFEST_FILE);
  // One byte beyond the bound is enough for the parser to refuse it.
  const bytes = await readAtMost(manifestPath, limits.ruleFileBytesMax).catch((cause: unknown) => {
    const why = (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (cause as Error).message;
    throw new MayflyError('E_MANIFEST_INVALID', `${manifestPath}: ${why}`, {
      cause, remedy: 'Write one with `mayfly init FOLDER`.',
    });
  });
  const manifest = requireManifest(parseManifest(manifestPath, bytes));
  const rules = manifest.rules === null ? [] : await packRules(folder, manifest.rules);
  const entries = (await packedEntries(folder, manifest.start)).filter(({ path }) => !isOwn(path, manifest));
  const listed = entries.map((entry): ListedEntry => {
    if (entry.kind !== 'file') return entry;
    const { kind, path, mode, content } = entry;
    return { kind, path, mode, digest: digestOf(content), bytes: content.length };
  });
  const record = canonicalJson({ versionVersion: 1, manifest, rules, entries: listed } satisfies VersionRecord);
  const code = Buffer.concat(entries.flatMap((entry) => (entry.kind === 'file' ? [entry.content] : [])));
  return { digest: digestOf(record), manifest, record, code };
}

/** Neither the manifest nor the rules are the function's business. */
function isOwn(path: string, { rules }: Manifest): boolean {
  return path === MANIFEST_FILE || (rules !== null && (path === rules || path.startsWith(`${rules}/`)));
}

async function packedEntries(folder: string, start: Start): Promise<readonly FunctionEntry[]> {
  if (start.kind === 'program') return [];
  const { entries } = await packFunction({ entry: join(folder, start.file), folder });
  const entry = entries.find(({ path }) => path === start.file);
  if (start.kind === 'exec' && entry?.kind === 'file' && (entry.mode & 0o100) === 0) {
    throw new MayflyError('E_HANDLER_MISSING', `${start.file} is not executable`, {
      remedy: `Run \`chmod +x ${start.file}\`.`,
    });
  }
  return entries;
}

async function packRules(folder: string, path: string): Promise<VersionRecord['rules']> {
  const files = await readRuleFiles(join(folder, path));
  requireRules(loadRules(files));
  return files.map(({ name, bytes }) => ({ name: name.slice(folder.length).replace(/^\//, ''), text: String(bytes) }));
}

export interface Versions {
  /** Idempotent: the same content is kept once. */
  put(version: PackedVersion): Promise<void>;
  /** Rejects with E_FUNCTION_UNKNOWN and E_FUNCTION_CORRUPT. */
  load(digest: string): Promise<FunctionVersion>;
  remove(digest: string): Promise<void>;
}

/** `folder`: MAYFLY_HOME/functions/versions. `unique` names half-written ones. */
export function openVersions(folder: string, unique: () => string): Versions {
  const place = (digest: string): string => join(folder, digest.slice('sha256:'.length));
  return {
    async put({ digest, record, code }) {
      const there = await stat(place(digest)).catch(() => undefined);
      if (there !== undefined) return;
      const half = join(folder, `half-${unique()}`);
      await makeFolder(half, 0o700);
      try {
        await writeDurably(join(half, 'code'), code, 0o600);
        await writeDurably(join(half, 'version.json'), record, 0o600);
        await rename(half, place(digest));
        await syncFolder(folder);
      } catch (thrown) {
        await rm(half, { recursive: true, force: true });
        // Another deploy of the same content was quicker.
        if ((await stat(place(digest)).catch(() => undefined)) === undefined) throw thrown;
      }
    },
    load: (digest) => loadVersion(place(digest), digest),
    remove: (digest) => rm(place(digest), { recursive: true, force: true }),
  };
}

async function loadVersion(folder: string, digest: string): Promise<FunctionVersion> {
  const text = await readAtMost(join(folder, 'version.json'), limits.versionRecordBytesMax).catch((cause: unknown) => {
    throw new MayflyError('E_FUNCTION_UNKNOWN', `there is no version ${digest}`, { cause });
  });
  if (digestOf(text) !== digest) throw corrupt(digest, 'version.json');
  const { manifest, rules, entries: listed } = JSON.parse(String(text)) as VersionRecord;
  const code = await readAtMost(join(folder, 'code'), limits.codeBytesMax).catch(() => {
    throw corrupt(digest, 'code');
  });
  let offset = 0;
  const entries = listed.map((entry): FunctionEntry => {
    if (entry.kind !== 'file') return entry;
    const content = code.subarray(offset, offset + entry.bytes);
    offset += entry.bytes;
    if (digestOf(content) !== entry.digest) throw corrupt(digest, entry.path);
    return { kind: 'file', path: entry.path, mode: entry.mode, content };
  });
  const files = rules.map(({ name, text: source }) => ({ name, bytes: Buffer.from(source) }));
  return {
    digest, manifest, bytes: offset,
    workload: workloadOf(manifest, entries),
    rules: files.length === 0 ? undefined : requireRules(loadRules(files)),
  };
}

function corrupt(digest: string, what: string): MayflyError {
  return new MayflyError('E_FUNCTION_CORRUPT', `${what} of version ${digest} was changed or cut off`);
}

function workloadOf({ start, env: variables }: Manifest, entries: readonly FunctionEntry[]): Workload {
  const pairs = Object.entries(variables);
  const env = pairs.length === 0 ? {} : { env: new Map(pairs) };
  if (start.kind === 'handler') return { kind: 'runtime', handler: `/function/${start.file}`, entries, ...env };
  const program = start.kind === 'exec' ? `/function/${start.file}` : start.path;
  return { kind: 'executable', argv: [program, ...start.args], raw: start.raw, entries, ...env };
}
