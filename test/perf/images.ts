/**
 * The rows of the benchmark about images: what each costs on disk and in memory, from power-on to ready, and from an
 * event to its first result; and what clones of different functions on one base share.
 */
import { readFileSync, statSync } from 'node:fs';
import type { Workload } from '../../src/event/workload.ts';
import { bootOnce } from '../../src/clone/vmm/qemu.ts';
import type { Machine } from '../../src/clone/vmm/contract.ts';
import type { Image } from '../../src/image/repository.ts';
import { clock, inFolder, mebibyte } from '../vm/rig.ts';
import { run as runIn } from '../vm/guest.ts';
import { figures, printTable } from './table.ts';
import type { World } from './world.ts';

export interface ImageBench {
  readonly world: World;
  readonly n: number;
  /** Boots and prepares a machine of the image, as for a template. */
  readonly prepared: (image: string, bridge: Machine['bridge']) => Promise<void>;
  /** The trivial function of a language; an executable has BusyBox. */
  readonly handlers: ReadonlyMap<string, Workload>;
  /** One event through a clone; what is measured is asked while the machine is there. */
  readonly during: (image: string, workload: Workload, ask: (machine: Machine) => Promise<void>) => Promise<void>;
}

const MiB = (bytes: number): string => `${(bytes / mebibyte).toFixed(bytes < 100 * mebibyte ? 1 : 0)} MiB`;
const millis = (values: readonly number[]): string => `${figures(values).p50.toFixed(0)} ms`;

export async function benchImages(bench: ImageBench): Promise<void> {
  const { world, n } = bench;
  const rows: string[][] = [];
  for (const image of world.rig.repository.images.list()) {
    const row = await rowOf(bench, image);
    rows.push(row);
    process.stderr.write(`${row.join('   ')}\n`);
  }
  const head = ['image', 'packed', 'mounted', 'template on disk', 'boot to ready', `event to result (p50, n=${n})`];
  printTable('images (RAM 448 MiB)', head, rows);
  await shared(bench);
}

async function rowOf({ world, n, prepared, handlers }: ImageBench, image: Image): Promise<string[]> {
  const { rig } = world;
  const { name, runtime, bytes } = image;
  let ready = Number.NaN;
  await inFolder(async (folder) => {
    const from = clock.now();
    await bootOnce(rig.engine, await rig.spec(folder, name), async (bridge) => {
      await prepared(name, bridge);
      ready = clock.now() - from;
    });
  });
  const template = await rig.template(name);
  // Not `du -x /`: what lies below the overlay counts as another file system.
  const { text } = await runIn(rig, template, { argv: ['/bin/busybox', 'du', '-s', '-k', ...FOLDERS] });
  const mounted = text.split('\n').reduce((sum, line) => sum + (Number.parseInt(line, 10) || 0), 0) * 1024;
  const handler = handlers.get(runtime?.argv[0]?.replace(/.*\//, '') ?? '');
  const argv = ['/bin/busybox', 'echo', '1'];
  const workload: Workload = handler ?? { kind: 'executable', argv, raw: false, entries: [] };
  const times: number[] = [];
  for (let i = 0; i < n; i++) {
    const { verdict, timeline } = await world.run(name, workload, Buffer.from('{"text":"a"}'));
    if (verdict.kind !== 'accepted') throw new Error(`${name}: ${verdict.message}`);
    times.push(Math.max(...timeline.filter(({ stage }) => stage === 'validate').map((it) => it.at + it.millis)));
  }
  const onDisk = statSync(template.state.ram).blocks * 512;
  return [name, MiB(bytes), MiB(mounted), MiB(onDisk), millis([ready]), millis(times)];
}

/** Where images have their files. */
const FOLDERS = ['/bin', '/etc', '/lib', '/opt', '/usr', '/var'];

/** Two functions, two images of one file system: what the second clone has that the first one has not. */
async function shared({ during, handlers }: ImageBench): Promise<void> {
  const node = handlers.get('node');
  const another = handlers.get('another');
  if (node === undefined || another === undefined) throw new Error('there are no two functions for node');
  const rows: string[][] = [];
  for (const [what, other] of [['the same template', 'node'], ['another template of one base', 'web']] as const) {
    await during('node', node, async () => {
      await during(other, another, async ({ identity }) => {
        const rollup = readFileSync(`/proc/${identity.pid}/smaps_rollup`, 'utf8');
        const bytes = (name: string): number => {
          const found = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(rollup);
          return Number(found?.[1] ?? Number.NaN) * 1024;
        };
        const ownDirty = bytes('Private_Dirty');
        rows.push([what, MiB(bytes('Rss')), MiB(ownDirty), MiB(bytes('Rss') - ownDirty - bytes('Private_Clean'))]);
      });
    });
  }
  printTable('memory of a second clone, of another function', ['beside a clone of', 'in all', 'its own', 'shared'], rows);
}
