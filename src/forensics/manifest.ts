/**
 * What may be said about a snapshot to somebody who must not read it: which run, whose, until when, how large, and the
 * digests of its files. Everything else is in the files, encrypted. docs/FORMATS.md has the format.
 */
import { canonicalJson, digestOf, isObject, parseStrict } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { SealedFile } from './vault.ts';

export interface SnapshotManifest {
  readonly snapshotVersion: 1;
  readonly runId: string;
  readonly tenant: string;
  /** ISO 8601. */
  readonly takenAt: string;
  readonly expiresAt: string;
  readonly because: string;
  readonly kernel: string;
  /** Key of the template; its memory is `bases/KEY`. */
  readonly template: string;
  readonly ramBytes: number;
  /** Of 4096 bytes, that differ from the template. */
  readonly changedPages: number;
  readonly files: readonly SealedFile[];
}

/** What an operator may change about it afterwards. */
export interface SnapshotHold {
  readonly held: boolean;
  readonly because: string;
}

/** What the evidence of the run says about its snapshot. */
export type RecordedSnapshot =
  | { readonly kind: 'kept'; readonly manifest: string; readonly bytes: number; readonly because: string }
  | { readonly kind: 'skipped'; readonly because: string; readonly reason: string };

export function encodeManifest(manifest: SnapshotManifest): { readonly bytes: Buffer; readonly digest: string } {
  const bytes = Buffer.from(canonicalJson(manifest));
  return { bytes, digest: digestOf(bytes) };
}

/** Undefined when it is none. */
export function parseManifest(bytes: Buffer): SnapshotManifest | undefined {
  const parsed = parseStrict(bytes, { bytesMax: limits.snapshotManifestBytesMax, depthMax: 8 });
  if (!parsed.ok || !isObject(parsed.value) || parsed.value['snapshotVersion'] !== 1) return undefined;
  const { runId, tenant, takenAt, expiresAt, template, ramBytes, files } = parsed.value;
  const texts = [runId, tenant, takenAt, expiresAt, template].every((text) => typeof text === 'string');
  if (!texts || typeof ramBytes !== 'number' || !Array.isArray(files)) return undefined;
  return parsed.value as unknown as SnapshotManifest;
}

/** A tenant's name as that of a file: what could be a path is replaced by its digest. */
export function tenantFolder(tenant: string | undefined): string {
  if (tenant === undefined) return 'default';
  return /^[a-z0-9][a-z0-9_-]{0,62}$/.test(tenant) ? tenant : `t-${digestOf(tenant).slice(7, 39)}`;
}
