/**
 * Which function of which tenant is which version: one small file for each function, replaced as a whole, so that the
 * command line and a running service can change and read it at the same time. Versions themselves are in version.ts.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { fingerprint, listOrNone, makeFolder, readAtMost, syncFolder, writeDurably } from '../core/files.ts';
import { canonicalJson } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { isServiceName } from './manifest.ts';
import type { FunctionVersion, PackedVersion, Versions } from './version.ts';

export interface Deployment {
  readonly version: string;
  /** ISO 8601. */
  readonly at: string;
}

export interface FunctionRecord {
  readonly recordVersion: 1;
  readonly tenant: string;
  readonly name: string;
  /** Newest first; the first one is in use. */
  readonly deployments: readonly Deployment[];
}

export interface RegistryOptions {
  /** MAYFLY_HOME/functions */
  readonly folder: string;
  readonly versions: Versions;
  /** ISO 8601. */
  readonly now: () => string;
}

export class Registry {
  readonly #options: RegistryOptions;
  readonly #seen = new Map<string, { readonly print: string; readonly record: FunctionRecord }>();
  /** Least recently used first. */
  readonly #loaded = new Map<string, Promise<FunctionVersion>>();

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /** Makes a version the one in use. The same content again changes nothing. */
  async deploy(tenant: string, packed: PackedVersion): Promise<FunctionRecord> {
    const { name } = packed.manifest;
    const before = await this.#read(tenant, name);
    const others = before === undefined ? (await this.names(tenant)).length : 0;
    if (others >= limits.functionsMax) {
      throw new MayflyError('E_LIMIT_INVALID', `a tenant has at most ${limits.functionsMax} functions`);
    }
    await this.#options.versions.put(packed);
    return await this.#use(tenant, name, before?.deployments ?? [], packed.digest);
  }

  /** Back to `version`, or to the one before. Rejects with E_FUNCTION_UNKNOWN. */
  async rollback(tenant: string, name: string, version?: string): Promise<FunctionRecord> {
    const { deployments } = await this.record(tenant, name);
    const [current] = deployments;
    const target = version === undefined
      ? deployments.find((each) => each.version !== current?.version)
      : deployments.find((each) => each.version === version || each.version.startsWith(`sha256:${version}`));
    if (target === undefined) {
      const what = version === undefined ? 'no version before the one in use' : `no version ${version}`;
      throw new MayflyError('E_FUNCTION_UNKNOWN', `${tenant}/${name} has ${what}`);
    }
    return await this.#use(tenant, name, deployments, target.version);
  }

  /** Rejects with E_FUNCTION_UNKNOWN. What is under way goes on: a run has its code in memory. */
  async remove(tenant: string, name: string): Promise<void> {
    const { deployments } = await this.record(tenant, name);
    await rm(this.#path(tenant, name));
    await syncFolder(join(this.#options.folder, tenant));
    await this.#forget(deployments.map(({ version }) => version));
  }

  /** Rejects with E_FUNCTION_UNKNOWN. */
  async record(tenant: string, name: string): Promise<FunctionRecord> {
    const record = await this.#read(tenant, name);
    if (record === undefined) {
      throw new MayflyError('E_FUNCTION_UNKNOWN', `there is no function ${tenant}/${name.slice(0, 80)}`);
    }
    return record;
  }

  /** Sorted. */
  async names(tenant: string): Promise<string[]> {
    if (!isServiceName(tenant) || tenant === VERSIONS) return [];
    const files = await listOrNone(join(this.#options.folder, tenant));
    return files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -'.json'.length));
  }

  /** Those that have functions, sorted. */
  async tenants(): Promise<string[]> {
    return (await listOrNone(this.#options.folder)).filter((name) => isServiceName(name) && name !== VERSIONS);
  }

  /** The version in use, or the one asked for. Rejects with E_FUNCTION_UNKNOWN and E_FUNCTION_CORRUPT. */
  async load(tenant: string, name: string, version?: string): Promise<FunctionVersion> {
    const digest = version ?? (await this.record(tenant, name)).deployments[0]?.version ?? '';
    const known = this.#loaded.get(digest);
    this.#loaded.delete(digest);
    const loading = known ?? this.#options.versions.load(digest);
    this.#loaded.set(digest, loading);
    loading.catch(() => this.#loaded.delete(digest));
    for (const oldest of [...this.#loaded.keys()].slice(0, -limits.versionsLoadedMax)) this.#loaded.delete(oldest);
    return await loading;
  }

  async #use(
    tenant: string, name: string, before: readonly Deployment[], version: string,
  ): Promise<FunctionRecord> {
    const at = this.#options.now();
    const [first] = before;
    const kept = before.filter((each) => each.version !== version);
    const deployments = first?.version === version ? before : [{ version, at }, ...kept];
    const record: FunctionRecord = {
      recordVersion: 1, tenant, name, deployments: deployments.slice(0, limits.functionVersionsKept),
    };
    await makeFolder(join(this.#options.folder, tenant), 0o700);
    await writeDurably(this.#path(tenant, name), canonicalJson(record), 0o600);
    await this.#forget(deployments.slice(limits.functionVersionsKept).map((each) => each.version));
    return record;
  }

  /** Versions that no function has any more. */
  async #forget(versions: readonly string[]): Promise<void> {
    if (versions.length === 0) return;
    const used = new Set<string>();
    for (const tenant of await this.tenants()) {
      for (const name of await this.names(tenant)) {
        for (const { version } of (await this.#read(tenant, name))?.deployments ?? []) used.add(version);
      }
    }
    for (const version of versions) if (!used.has(version)) await this.#options.versions.remove(version);
  }

  /** Read again only when the file has changed: it is asked for with every event. */
  async #read(tenant: string, name: string): Promise<FunctionRecord | undefined> {
    if (!isServiceName(tenant) || !isServiceName(name) || tenant === VERSIONS) return undefined;
    const path = this.#path(tenant, name);
    const found = await fingerprint(path).catch(() => undefined);
    if (found === undefined) return void this.#seen.delete(path);
    const print = canonicalJson(found);
    const seen = this.#seen.get(path);
    if (seen?.print === print) return seen.record;
    const record = JSON.parse(String(await readAtMost(path, limits.serviceRecordBytesMax))) as FunctionRecord;
    this.#seen.set(path, { print, record });
    return record;
  }

  #path(tenant: string, name: string): string {
    return join(this.#options.folder, tenant, `${name}.json`);
  }
}

/** Beside the tenants' folders; no tenant has this name. */
export const VERSIONS = 'versions';
