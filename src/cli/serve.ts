/** `mayfly serve`: opens everything, listens, says so, and drains on the first signal. */
import { readFile, statfs } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { availableParallelism, totalmem } from 'node:os';
import { pino } from 'pino';
import type { AcceleratorMode } from '../clone/accelerator.ts';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { ServiceSettings } from '../serve/service.ts';
import type { Io } from './io.ts';
import { parseDuration, parseSize } from './units.ts';

export interface ServeOptions {
  readonly listen: string;
  readonly accel: string;
  readonly concurrency?: string;
  readonly queue?: string;
  readonly warmMemory?: string;
  readonly store?: string;
  readonly results?: string;
  readonly deadLetters?: string;
  readonly drain?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly openMetrics?: boolean;
}

export async function serve(io: Io, options: ServeOptions): Promise<number> {
  const { accel, listen } = options;
  if (accel !== 'auto' && accel !== 'kvm' && accel !== 'tcg') {
    throw new MayflyError('E_USAGE', `--accel ${accel}: must be auto, kvm or tcg`);
  }
  const settings = settingsOf(options);
  const bytesMax = sizeOf(options.store, '--store', limits.storeBytesDefault, limits.storeBytesMin);
  const address = parseListen(listen);
  const tls = await tlsOf(options);
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, { write: (line: string) => io.err(line) });
  const app = await io.openApp();
  const places = await app.places();
  const unlock = await places.lock();
  try {
    const [{ Service }, { createServer }, { openRunner }] = await Promise.all([
      import('../serve/service.ts'), import('../serve/server.ts'), import('../serve/runner.ts'),
    ]);
    const { reports, undelivered } = await app.reclaim();
    for (const report of reports) log.warn({ report }, 'left by an earlier process');
    const runner = await openRunner(app, accel as AcceleratorMode);
    if (runner.isolation === 'tcg')
      log.warn({ isolation: 'tcg' }, 'software emulation, without a promise of isolation');
    const store = await places.events(bytesMax);
    const { clock, random, functions, tenants } = places;
    const freeBytes = async (): Promise<number> => {
      const { bavail, bsize } = await statfs(app.home);
      return bavail * bsize;
    };
    const service = new Service({ settings, store, runner, functions, tenants, clock, random, log, freeBytes });
    const server = await createServer({
      service, tenants, clock, log, version: io.version, openMetrics: options.openMetrics === true,
      ...(tls === undefined ? {} : { tls }),
    });
    await service.start(new Set(undelivered));
    await server.listen(address).catch(async (cause: unknown) => {
      await service.stop();
      throw new MayflyError('E_SERVE_ADDRESS', `${listen}: ${(cause as Error).message}`, { cause });
    });
    const [bound] = server.addresses() as AddressInfo[];
    io.out(`listening on ${tls === undefined ? 'http' : 'https'}://${shown(bound?.address ?? '')}:${bound?.port}\n`);
    log.info({ ...settings, isolation: runner.isolation }, 'ready');
    await new Promise<void>((resolve) => {
      if (io.signal.aborted) resolve();
      io.signal.addEventListener('abort', () => resolve());
    });
    log.info({ running: true }, 'draining');
    service.drain();
    await service.stop();
    await server.close();
    log.info({}, 'stopped');
    return 0;
  } finally {
    await unlock();
  }
}

function shown(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

function settingsOf(options: ServeOptions): ServiceSettings {
  const share = Math.floor((totalmem() * limits.warmShareOfMemoryPercent) / 100);
  const warmBytes = sizeOf(options.warmMemory, '--warm-memory', share, 0);
  const time = (text: string | undefined, option: string, byDefault: number): number =>
    text === undefined ? byDefault : parseDuration(text, option);
  return {
    concurrency: whole(options.concurrency, '--concurrency', availableParallelism(), limits.concurrencyMax),
    queue: whole(options.queue, '--queue', limits.queueDefault, limits.queueMax),
    warm: Math.min(limits.poolTargetMax, Math.floor(warmBytes / limits.warmBytesEach)),
    resultMillis: time(options.results, '--results', limits.resultMillisDefault),
    deadLetterMillis: time(options.deadLetters, '--dead-letters', limits.deadLetterMillisDefault),
    drainMillis: time(options.drain, '--drain', limits.drainMillisDefault),
  };
}

function whole(text: string | undefined, option: string, byDefault: number, most: number): number {
  if (text === undefined) return Math.min(byDefault, most);
  const value = Number(text);
  if (/^\d{1,9}$/.test(text) && value >= 1 && value <= most) return value;
  throw new MayflyError('E_SERVE_CONFIG', `${option} ${text}: must be a whole number from 1 to ${most}`);
}

function sizeOf(text: string | undefined, option: string, byDefault: number, least: number): number {
  const bytes = text === undefined ? byDefault : parseSize(text, option);
  if (bytes >= least) return bytes;
  throw new MayflyError('E_SERVE_CONFIG', `${option} ${text}: must be at least ${least} bytes`);
}

function parseListen(text: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match !== null && port <= 65_535) return { host: match[1] ?? match[2] ?? '', port };
  throw new MayflyError('E_SERVE_CONFIG', `--listen ${text}: must be ADDRESS:PORT, as in 127.0.0.1:8420`);
}

async function tlsOf({ tlsCert, tlsKey }: ServeOptions): Promise<{ cert: Buffer; key: Buffer } | undefined> {
  if (tlsCert === undefined && tlsKey === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined) {
    throw new MayflyError('E_SERVE_CONFIG', '--tls-cert and --tls-key need each other');
  }
  const read = (path: string): Promise<Buffer> =>
    readFile(path).catch((cause: unknown) => {
      throw new MayflyError('E_SERVE_CONFIG', `${path} cannot be read (${(cause as NodeJS.ErrnoException).code})`, {
        cause,
      });
    });
  return { cert: await read(tlsCert), key: await read(tlsKey) };
}
