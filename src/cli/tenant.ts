/** `mayfly tenant …` and `mayfly key …`: who may send events and change functions. */
import { MayflyError } from '../core/errors.ts';
import { isoTime } from '../core/time.ts';
import { printJson } from './io.ts';
import type { Io } from './io.ts';
import { table } from './list.ts';

export interface QuotaOptions {
  readonly rate?: string;
  readonly queued?: string;
  readonly concurrency?: string;
}

export interface KeyOptions {
  readonly tenant: string;
  readonly role?: readonly string[];
  readonly label?: string;
  readonly days?: string;
  readonly json?: boolean;
}

export async function createTenant(io: Io, name: string, options: QuotaOptions): Promise<number> {
  const { rate, queued, concurrency } = options;
  const tenants = (await (await io.openApp()).places()).tenants;
  const { quota } = await tenants.put(name, {
    ...(rate === undefined ? {} : { eventsPerSecond: whole(rate, '--rate') }),
    ...(queued === undefined ? {} : { queued: whole(queued, '--queued') }),
    ...(concurrency === undefined ? {} : { concurrency: whole(concurrency, '--concurrency') }),
  });
  const most = quota.concurrency === null ? '' : `, ${quota.concurrency} at a time`;
  io.out(`${name}: ${quota.eventsPerSecond} events per second, ${quota.queued} waiting${most}\n`);
  return 0;
}

export async function listTenants(io: Io, { json }: { readonly json?: boolean }): Promise<number> {
  const list = await ((await (await io.openApp()).places()).tenants).list();
  if (json === true) printJson(io, list);
  else {
    const rows = list.map(({ name, quota, createdAt }) => [
      name, String(quota.eventsPerSecond), String(quota.queued), String(quota.concurrency ?? 'any'), createdAt,
    ]);
    io.out(table([['TENANT', 'EVENTS/S', 'WAITING', 'AT A TIME', 'CREATED'], ...rows]));
  }
  return 0;
}

/** Functions go first: what an event would need must not vanish below it. */
export async function deleteTenant(io: Io, name: string): Promise<number> {
  const { functions, tenants } = await (await io.openApp()).places();
  await tenants.require(name);
  const left = await functions.names(name);
  if (left.length > 0) {
    throw new MayflyError('E_USAGE', `${name} still has ${left.length} functions: ${left.slice(0, 5).join(', ')}`, {
      remedy: `Delete them first, as in \`mayfly function delete ${left[0]} --tenant ${name}\`.`,
    });
  }
  await tenants.remove(name);
  io.out(`${name} is gone, and its keys with it\n`);
  return 0;
}

/** The key is on stdout, alone, so that a script can take it; it is not shown again. */
export async function createKey(io: Io, options: KeyOptions): Promise<number> {
  const { roles } = await import('../tenant/tenants.ts');
  const wanted = options.role ?? ['invoke'];
  const chosen = roles.filter((role) => wanted.includes(role));
  const unknown = wanted.find((role) => !(roles as readonly string[]).includes(role));
  if (unknown !== undefined) {
    throw new MayflyError('E_USAGE', `--role ${unknown}: must be one of ${roles.join(', ')}`);
  }
  const tenants = (await (await io.openApp()).places()).tenants;
  if (options.tenant === 'default') await tenants.put('default');
  const nanos = options.days === undefined ? undefined : BigInt(whole(options.days, '--days')) * 86_400_000_000_000n;
  const expiresAt = nanos === undefined ? null : isoTime(io.wallNanos() + nanos);
  const label = (options.label ?? '').slice(0, 100);
  const { key, id } = await tenants.createKey({ tenant: options.tenant, roles: chosen, label, expiresAt });
  if (options.json === true) printJson(io, { key, id, tenant: options.tenant, roles: chosen, expiresAt });
  else {
    io.out(`${key}\n`);
    io.err(`mayfly: key ${id} of ${options.tenant} (${chosen.join(', ')}). It is not shown again.\n`);
  }
  return 0;
}

export async function listKeys(io: Io, { tenant, json }: Partial<KeyOptions>): Promise<number> {
  const list = await ((await (await io.openApp()).places()).tenants).keys(tenant);
  if (json === true) printJson(io, list.map(({ sha256: _sha256, ...key }) => key));
  else {
    const rows = list.map(({ id, tenant: owner, roles, createdAt, expiresAt, label }) => [
      id, owner, roles.join(','), createdAt, expiresAt ?? 'never', label,
    ]);
    io.out(table([['KEY', 'TENANT', 'ROLES', 'CREATED', 'EXPIRES', 'LABEL'], ...rows]));
  }
  return 0;
}

export async function revokeKey(io: Io, id: string): Promise<number> {
  await ((await (await io.openApp()).places()).tenants).revoke(id);
  io.out(`${id} is revoked\n`);
  return 0;
}

function whole(text: string, option: string): number {
  const value = Number(text);
  if (/^\d{1,9}$/.test(text) && value > 0) return value;
  throw new MayflyError('E_USAGE', `${option} ${text}: must be a whole number above 0`);
}
