/**
 * Threat intelligence at its size: building an index of a million indicators, its memory, reading a stored copy, the
 * pause that a reload causes, and what one event of 4 KB costs. Prints tables, asserts nothing, needs no VM.
 *
 *   node --expose-gc test/perf/intel.bench.ts [--n 1000000] [--events 2000]
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { createDisk } from '../../src/core/disk.ts';
import type { Clock } from '../../src/core/time.ts';
import { assess } from '../../src/intel/assess.ts';
import { IndexBuilder } from '../../src/intel/index.ts';
import type { IndicatorKind } from '../../src/intel/indicator.ts';
import { Intel } from '../../src/intel/intel.ts';
import { observe } from '../../src/intel/observe.ts';
import { printTable, row, timeHead } from './table.ts';

const { values } = parseArgs({
  options: { n: { type: 'string', default: '1000000' }, events: { type: 'string', default: '2000' } },
});
const n = Number(values.n);
const events = Number(values.events);
const MiB = 1024 * 1024;
const nowSeconds = Math.floor(Date.now() / 1000);

/** 40 % addresses, 30 % domains, 10 % URLs, 20 % SHA-256. */
function indicator(at: number): { kind: IndicatorKind; value: string } {
  if (at % 10 < 4) {
    const address = (at * 2654435761) >>> 0;
    return {
      kind: 'ip',
      value: `${(address % 200) + 11}.${(address >>> 8) & 255}.${(address >>> 16) & 255}.${address >>> 24}`,
    };
  }
  if (at % 10 < 7) return { kind: 'domain', value: `host-${at}.campaign-${at % 5000}.example` };
  if (at % 10 < 8) return { kind: 'url', value: `http://files-${at}.example/download/payload-${at}.bin` };
  return { kind: 'hash', value: createHash('sha256').update(String(at)).digest('hex') };
}

const prepared = Array.from({ length: n }, (_, at) => indicator(at));
globalThis.gc?.();
const before = process.memoryUsage();
const from = performance.now();
const builder = new IndexBuilder(randomBytes(4).readUInt32LE(0));
for (const one of prepared) {
  builder.add(0, {
    ...one,
    confidence: 80,
    severity: 'high',
    validFrom: nowSeconds - 86_400,
    validUntil: 0,
    labels: 'botnet',
  });
}
const index = builder.build();
const buildMillis = performance.now() - from;
globalThis.gc?.();
const held = process.memoryUsage();
const heldMiB = (held.heapUsed + held.arrayBuffers - before.heapUsed - before.arrayBuffers) / MiB;
process.stdout.write(
  `index of ${index.size} indicators: built in ${buildMillis.toFixed(0)} ms, ` +
    `${(index.bytes / MiB).toFixed(0)} MiB of columns, ${heldMiB.toFixed(0)} MiB held after collection\n`,
);

const snapshot = {
  index,
  feeds: [
    { name: 'bench', health: 'fresh', count: n, freshAt: nowSeconds, denies: true, reliability: 100, notes: [] },
  ],
} as const;
const [clean, listed] = [event(false), event(true)];
const series = async (value: unknown): Promise<number[]> => {
  const millis: number[] = [];
  for (let at = 0; at < events; at++) {
    const start = performance.now();
    const observed = await observe({ value, bytes: 4096, sourceAddress: '203.0.113.9' });
    assess({ observed, snapshot, nowSeconds });
    millis.push(performance.now() - start);
  }
  return millis.slice(Math.floor(events / 10));
};
const micros = (millis: number[]): number[] => millis.map((one) => one * 1000);
printTable(`extraction and score of an event of ${JSON.stringify(clean).length} bytes`, timeHead, [
  row('nothing listed', micros(await series(clean)), 'µs'),
  row('ten values listed', micros(await series(listed)), 'µs'),
]);

await storedCopy();

function event(bad: boolean): unknown {
  const items = Array.from({ length: 24 }, (_, at) => ({
    id: `item-${at}`,
    note: 'an everyday sentence that has nothing to be found in it, as most texts have',
    link: bad && at < 10 ? indicator(at).value : `https://shop-${at}.example/item?id=${at}`,
  }));
  return {
    specversion: '1.0',
    id: '1',
    source: '/bench',
    type: 'bench',
    data: { user: 'a@mail.example', ip: '198.51.100.1', items },
  };
}

/** The same through the disk: sync of a file, then a reload under watch. */
async function storedCopy(): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), 'mayfly-intel-bench-'));
  try {
    writeFileSync(join(home, 'list.txt'), prepared.map(({ value }) => value).join('\n'));
    writeFileSync(
      join(home, 'feeds.yaml'),
      'feeds:\n  - {name: bench, format: lines, path: list.txt, tolerate: [private]}\n',
    );
    const clock: Clock = {
      now: () => performance.now(),
      wallNanos: () => BigInt(Date.now()) * 1_000_000n,
      after: (millis, fire) => {
        const timer = setTimeout(fire, millis);
        return () => clearTimeout(timer);
      },
    };
    const disk = createDisk();
    const intel = new Intel({
      folder: home,
      disk,
      clock,
      random: { bytes: (size) => randomBytes(size) },
      environment: () => '',
    });
    const start = performance.now();
    const [synced] = await intel.sync({ only: [], accept: false, signal: new AbortController().signal });
    const syncMillis = performance.now() - start;
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const reloadFrom = performance.now();
    await intel.reload();
    const reloadMillis = performance.now() - reloadFrom;
    delay.disable();
    process.stdout.write(
      `\nsync of a list of ${synced?.state.count} lines (parse, vet, store, index): ${syncMillis.toFixed(0)} ms\n` +
        `reload from the stored copy: ${reloadMillis.toFixed(0)} ms; pauses meanwhile: ` +
        `p50 ${(delay.percentile(50) / 1e6).toFixed(1)} ms, p99 ${(delay.percentile(99) / 1e6).toFixed(1)} ms, ` +
        `max ${(delay.max / 1e6).toFixed(1)} ms\n` +
        `peak resident ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB\n`,
    );
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}
