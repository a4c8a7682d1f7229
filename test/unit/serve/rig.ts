/**
 * The service as it is, with real sockets, a real store and real functions on disk; only the machines are played: what
 * an event's `data.do` says is what its run does.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { MayflyError } from '../../../src/core/errors.ts';
import type { ErrorCode } from '../../../src/core/errors.ts';
import type { RunId } from '../../../src/core/ids.ts';
import { isServiceName } from '../../../src/function/manifest.ts';
import { Registry, VERSIONS } from '../../../src/function/registry.ts';
import { openVersions, packVersion } from '../../../src/function/version.ts';
import type { SealedProfile } from '../../../src/profile/profile.ts';
import type { Runner, RunnerOrder } from '../../../src/serve/contract.ts';
import { createServer } from '../../../src/serve/server.ts';
import { Service } from '../../../src/serve/service.ts';
import type { ServiceSettings } from '../../../src/serve/service.ts';
import { Store } from '../../../src/serve/store/store.ts';
import type { Outcome } from '../../../src/stages.ts';
import { Tenants } from '../../../src/tenant/tenants.ts';
import type { Role } from '../../../src/tenant/tenants.ts';
import { failed } from '../../../src/validate/verdict.ts';
import { clock, mebibyte, random } from '../../vm/rig.ts';

/** `{"do": …}` in an event's data; anything else is given back. */
interface Wish {
  readonly do?: 'throw' | 'host' | 'late' | 'hang' | 'refuse' | 'raw';
  readonly millis?: number;
}

export const profile = (digest = 'p'): SealedProfile =>
  ({ digest, profile: {}, reasons: [] }) as unknown as SealedProfile;

export class PlayedRunner implements Runner {
  readonly isolation = 'played';
  mayFill = (): boolean => true;
  waiting = 0;
  closed = false;
  readonly runs: { readonly id: string; readonly name: string; readonly version: string; readonly tenant: string }[] =
    [];
  readonly kept: { readonly name: string; readonly digest: string; readonly target: number }[] = [];
  /** At a time. */
  now = 0;
  most = 0;

  async run(order: RunnerOrder): Promise<Outcome> {
    const { version, event, runId, signal, tenant } = order;
    const { id, data } = JSON.parse(event.toString()) as { id: string; data?: Wish };
    this.runs.push({ id, name: version.manifest.name, version: version.digest, tenant });
    this.most = Math.max(this.most, ++this.now);
    try {
      const wish = typeof data === 'object' && data !== null ? data : {};
      await pause(wish.do === 'hang' ? 3_600_000 : (wish.millis ?? 0), signal);
      if (signal.aborted) return outcome(runId, 'E_INTERRUPTED');
      if (wish.do === 'throw') return outcome(runId, 'E_FUNCTION_THREW');
      if (wish.do === 'late') return outcome(runId, 'E_FUNCTION_TIMEOUT');
      if (wish.do === 'host') return outcome(runId, 'E_CLONE_FAILED');
      if (wish.do === 'refuse') throw new MayflyError('E_IMAGE_UNKNOWN', 'there is no image');
      const text = /"data":(.*)\}$/s.exec(event.toString())?.[1] ?? 'null';
      return { ...outcome(runId), output: Buffer.from(wish.do === 'raw' ? '\u0000bytes' : text) };
    } finally {
      this.now--;
    }
  }

  async expect(): Promise<SealedProfile> {
    return profile();
  }

  keep(version: RunnerOrder['version'], { digest }: SealedProfile, target: number): void {
    this.kept.push({ name: version.manifest.name, digest, target });
  }

  look(): void {}

  async close(): Promise<void> {
    this.closed = true;
  }
}

function pause(millis: number, signal: AbortSignal): Promise<void> {
  if (millis === 0 || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, millis);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function outcome(runId: RunId, code?: ErrorCode): Outcome {
  const delivered = code === 'E_CLONE_FAILED' ? [] : [{ stage: 'execute' as const, at: 0, millis: 1, attempt: 1 }];
  return {
    runId, state: 'sealed',
    verdict: code === undefined ? { kind: 'accepted' } : failed(code, `played: ${code}`),
    output: undefined, profile: profile(), proof: undefined, timeline: delivered, usage: undefined, network: undefined,
    truncated: { stdout: false, stderr: false }, attempts: [{ attempt: 1 }],
    release: { verified: true, released: [], left: [] }, snapshot: undefined, evidence: undefined,
  };
}

export interface RigOptions {
  readonly settings?: Partial<ServiceSettings>;
  readonly bytesMax?: number;
  readonly runner?: PlayedRunner;
  readonly freeBytes?: () => Promise<number>;
}

export interface ServeRig {
  readonly url: string;
  readonly port: number;
  readonly service: Service;
  readonly server: FastifyInstance;
  readonly runner: PlayedRunner;
  readonly store: Store;
  readonly tenants: Tenants;
  readonly functions: Registry;
  readonly log: { readonly line: string }[];
  /** A function called `name` of a tenant, and a key for it. */
  deploy(name: string, manifest?: string, tenant?: string): Promise<void>;
  key(tenant: string, ...roles: Role[]): Promise<string>;
  close(): Promise<void>;
}

const defaultSettings: ServiceSettings = {
  concurrency: 4, queue: 1000, warm: 8, resultMillis: 3_600_000, deadLetterMillis: 3_600_000, drainMillis: 2_000,
};

/** In `home`, which may be that of a service that was closed or killed. */
export async function openServe(home: string, options: RigOptions = {}): Promise<ServeRig> {
  const folder = join(home, 'functions');
  let count = 0;
  const functions = new Registry({
    folder, versions: openVersions(join(folder, VERSIONS), () => String(count++)), now: () => new Date(0).toISOString(),
  });
  const tenants = new Tenants({ home, random, now: () => new Date(1).toISOString(), isName: isServiceName });
  const store = await Store.open({
    path: join(home, 'serve', 'events.db'),
    bytesMax: options.bytesMax ?? 64 * mebibyte,
  });
  const runner = options.runner ?? new PlayedRunner();
  const log: { line: string }[] = [];
  const note = (fields: object, message: string): void =>
    void log.push({ line: JSON.stringify({ ...fields, message }) });
  const service = new Service({
    settings: { ...defaultSettings, ...options.settings }, store, runner, functions, tenants, clock, random,
    log: { info: note, warn: note, error: note }, freeBytes: options.freeBytes ?? (async () => 1024 ** 4),
  });
  const server = await createServer({
    service, tenants, clock, log: { info: note, warn: note, error: note }, version: '9.8.7',
  });
  await service.start(new Set());
  await server.listen({ host: '127.0.0.1', port: 0 });
  const { port } = server.server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`, port, service, server, runner, store, tenants, functions, log,
    async deploy(name, manifest = '', tenant = 'acme') {
      await tenants.put(tenant, { eventsPerSecond: 10_000 });
      const source = join(home, 'source');
      mkdirSync(source, { recursive: true });
      writeFileSync(join(source, 'h.mjs'), 'export default () => 1;');
      writeFileSync(join(source, 'mayfly.yaml'), `mayfly: 1\nname: ${name}\nhandler: h.mjs\n${manifest}`);
      await functions.deploy(tenant, await packVersion(source));
    },
    async key(tenant, ...roles) {
      await tenants.put(tenant);
      return (await tenants.createKey({ tenant, roles, label: '', expiresAt: null })).key;
    },
    async close() {
      await service.stop();
      await server.close();
    },
  };
}
