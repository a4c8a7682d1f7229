/**
 * Tenants and their API keys, a small file each. A key is 256 random bits, so its SHA-256 is all that is kept: there is
 * nothing to guess, and the file is of no use to a thief. `mayfly_ID_SECRET`: the id finds the file, the secret is
 * compared in constant time, and an id that nobody has is compared as well.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { fingerprint, listOrNone, makeFolder, readAtMost, writeDurably } from '../core/files.ts';
import { canonicalJson } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';

/** `invoke` sends events and reads their results, `deploy` changes functions, `investigate` reads everybody's events of
 * its tenant and dead letters, `admin` may do all of that and change dead letters. */
export const roles = ['invoke', 'deploy', 'investigate', 'admin'] as const;
export type Role = (typeof roles)[number];

export interface Quota {
  /** Events accepted per second, in the long run. */
  readonly eventsPerSecond: number;
  /** Events that wait. */
  readonly queued: number;
  /** Events that run at a time; null: as many as the service runs. */
  readonly concurrency: number | null;
}

export interface Tenant {
  readonly tenantVersion: 1;
  readonly name: string;
  readonly createdAt: string;
  readonly quota: Quota;
}

export interface ApiKey {
  readonly keyVersion: 1;
  readonly id: string;
  readonly tenant: string;
  readonly roles: readonly Role[];
  /** What people know it by. */
  readonly label: string;
  /** Hex, of the whole key. */
  readonly sha256: string;
  readonly createdAt: string;
  /** ISO 8601; null: never. */
  readonly expiresAt: string | null;
}

export interface TenantsOptions {
  /** MAYFLY_HOME */
  readonly home: string;
  readonly random: Random;
  /** ISO 8601. */
  readonly now: () => string;
  readonly isName: (text: string) => boolean;
}

const defaultQuota: Quota = Object.freeze({
  eventsPerSecond: limits.tenantEventsPerSecondDefault, queued: limits.queueOfTenantDefault, concurrency: null,
});

const KEY = /^mayfly_([a-z0-9]{16})_([A-Za-z0-9_-]{43})$/;
const KEY_ID = /^[a-z0-9]{16}$/;
const NOBODY = Buffer.alloc(32);

export class Tenants {
  readonly #options: TenantsOptions;
  readonly #seen = new Map<string, { readonly print: string; readonly value: unknown }>();

  constructor(options: TenantsOptions) {
    this.#options = options;
  }

  /** Makes it, or changes its quota. Throws E_USAGE for a name that cannot be one. */
  async put(name: string, quota: Partial<Quota> = {}): Promise<Tenant> {
    if (!this.#options.isName(name) || name === 'versions') {
      throw new MayflyError('E_USAGE', `a tenant cannot be called ${name.slice(0, 80)}`, {
        remedy: `Use letters a to z, digits and hyphens, at most ${limits.serviceNameMax}.`,
      });
    }
    const before = await this.find(name);
    if (before === undefined && (await this.list()).length >= limits.tenantsMax) {
      throw new MayflyError('E_LIMIT_INVALID', `there are at most ${limits.tenantsMax} tenants`);
    }
    const tenant: Tenant = {
      tenantVersion: 1, name,
      createdAt: before?.createdAt ?? this.#options.now(),
      quota: { ...defaultQuota, ...before?.quota, ...quota },
    };
    await makeFolder(this.#folder('tenants'), 0o700);
    await writeDurably(this.#path('tenants', name), canonicalJson(tenant), 0o600);
    return tenant;
  }

  async find(name: string): Promise<Tenant | undefined> {
    if (!this.#options.isName(name)) return undefined;
    return (await this.#read(this.#path('tenants', name))) as Tenant | undefined;
  }

  /** Rejects with E_TENANT_UNKNOWN. */
  async require(name: string): Promise<Tenant> {
    const tenant = await this.find(name);
    if (tenant === undefined) throw new MayflyError('E_TENANT_UNKNOWN', `there is no tenant ${name.slice(0, 80)}`);
    return tenant;
  }

  async list(): Promise<Tenant[]> {
    const names = (await listOrNone(this.#folder('tenants'))).filter((file) => file.endsWith('.json'));
    const found = await Promise.all(names.map((file) => this.find(file.slice(0, -'.json'.length))));
    return found.filter((tenant) => tenant !== undefined);
  }

  /** The tenant's keys end with it; its functions are the registry's. */
  async remove(name: string): Promise<void> {
    await this.require(name);
    for (const key of await this.keys(name)) await this.revoke(key.id);
    await rm(this.#path('tenants', name));
  }

  /** The key itself is told once, here, and never kept. */
  async createKey(
    order: Pick<ApiKey, 'tenant' | 'roles' | 'label' | 'expiresAt'>,
  ): Promise<{ key: string; id: string }> {
    await this.require(order.tenant);
    const folder = this.#folder('api-keys');
    if ((await listOrNone(folder)).length >= limits.apiKeysMax) {
      throw new MayflyError('E_LIMIT_INVALID', `there are at most ${limits.apiKeysMax} keys`);
    }
    const { random, now } = this.#options;
    const id = [...random.bytes(16)].map((byte) => 'abcdefghjkmnpqrstvwxyz0123456789'.charAt(byte & 31)).join('');
    const key = `mayfly_${id}_${random.bytes(32).toString('base64url')}`;
    const record: ApiKey = { keyVersion: 1, id, ...order, sha256: sha256(key).toString('hex'), createdAt: now() };
    await makeFolder(folder, 0o700);
    await writeDurably(this.#path('api-keys', id), canonicalJson(record), 0o600);
    return { key, id };
  }

  async keys(tenant?: string): Promise<ApiKey[]> {
    const ids = (await listOrNone(this.#folder('api-keys'))).map((file) => file.replace(/\.json$/, ''));
    const found = await Promise.all(ids.filter((id) => KEY_ID.test(id)).map((id) => this.#key(id)));
    return found.filter((key) => key !== undefined && (tenant === undefined || key.tenant === tenant)) as ApiKey[];
  }

  /** At once, also for a service that runs. Rejects with E_KEY_UNKNOWN. */
  async revoke(id: string): Promise<void> {
    if (!KEY_ID.test(id) || (await this.#key(id)) === undefined) {
      throw new MayflyError('E_KEY_UNKNOWN', `there is no key ${id.slice(0, 80)}`);
    }
    await rm(this.#path('api-keys', id));
  }

  /** Undefined for whatever reason: a stranger learns nothing from the difference. */
  async authenticate(text: string): Promise<ApiKey | undefined> {
    const id = KEY.exec(text)?.[1];
    const key = id === undefined ? undefined : await this.#key(id);
    const expected = key === undefined ? NOBODY : Buffer.from(key.sha256, 'hex');
    const equal = expected.length === 32 && timingSafeEqual(sha256(text), expected);
    if (!equal || key === undefined) return undefined;
    if (key.expiresAt !== null && key.expiresAt <= this.#options.now()) return undefined;
    return key;
  }

  async #key(id: string): Promise<ApiKey | undefined> {
    return (await this.#read(this.#path('api-keys', id))) as ApiKey | undefined;
  }

  /** Read again only when the file has changed: it is asked for with every request. */
  async #read(path: string): Promise<unknown> {
    const found = await fingerprint(path).catch(() => undefined);
    if (found === undefined) return void this.#seen.delete(path);
    const print = canonicalJson(found);
    const seen = this.#seen.get(path);
    if (seen?.print === print) return seen.value;
    const value: unknown = JSON.parse(String(await readAtMost(path, limits.serviceRecordBytesMax)));
    this.#seen.set(path, { print, value });
    return value;
  }

  #folder(name: string): string {
    return join(this.#options.home, name);
  }

  #path(folder: string, name: string): string {
    return join(this.#folder(folder), `${name}.json`);
  }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
