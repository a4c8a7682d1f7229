/** The whole product for benchmarks and soaks: real machines, real pipeline, and VMMs that can be spawned ahead. */
import { join } from 'node:path';
import type { Pool } from '../../src/clone/pool.ts';
import { createPool, createStages } from '../../src/compose.ts';
import type { ComposeOptions } from '../../src/compose.ts';
import { realNetwork } from '../../src/egress/network.ts';
import { createDisk } from '../../src/core/disk.ts';
import { limits } from '../../src/core/limits.ts';
import { packFunction } from '../../src/event/code.ts';
import { openKeys } from '../../src/image/keys.ts';
import type { Workload } from '../../src/event/workload.ts';
import { runEvent } from '../../src/pipeline.ts';
import { createProcesses } from '../../src/release/processes.ts';
import type { Outcome, RunObserver } from '../../src/stages.ts';
import type { Machine, TemplateState, Vmm } from '../../src/clone/vmm/contract.ts';
import { clock, home, openRig, random } from '../vm/rig.ts';
import type { Rig } from '../vm/rig.ts';

export const root = join(import.meta.dirname, '../..');

/** Hands out machines that were spawned before they were needed; each is used once. */
export class AheadVmm implements Vmm {
  readonly #vmm: Vmm;
  readonly #ready: Machine[] = [];

  constructor(vmm: Vmm) {
    this.#vmm = vmm;
  }

  get isolation(): Vmm['isolation'] {
    return this.#vmm.isolation;
  }

  get version(): string {
    return this.#vmm.version;
  }

  buildTemplate(...args: Parameters<Vmm['buildTemplate']>): ReturnType<Vmm['buildTemplate']> {
    return this.#vmm.buildTemplate(...args);
  }

  async ahead(template: TemplateState): Promise<void> {
    this.#ready.push(await this.#vmm.spawn(template));
  }

  spawn(template: TemplateState): Promise<Machine> {
    const ready = this.#ready.shift();
    return ready === undefined ? this.#vmm.spawn(template) : Promise.resolve(ready);
  }
}

export interface World {
  readonly rig: Rig;
  readonly vmm: AheadVmm;
  /** Empty until it is told to keep something. */
  readonly pool: Pool;
  run(image: string, workload: Workload, event: Buffer, observer?: RunObserver): Promise<Outcome>;
}

export async function openWorld(): Promise<World> {
  const rig = await openRig();
  const vmm = new AheadVmm(rig.vmm);
  const processes = createProcesses();
  const startTicks = String(await processes.startTicks(process.pid));
  const owner = { pid: process.pid, startTicks, bootId: await processes.bootId() };
  const composition: ComposeOptions = {
    home, clock, random, vmm, processes, owner, disk: createDisk(), network: realNetwork(),
    snapshotBudgetBytes: limits.snapshotBudgetBytesDefault,
    signer: await openKeys(home, random).own(),
    template: async ({ image, shape }) => rig.templates.get(await rig.repository.images.get(image.name), shape.ramBytes),
    origin: ({ image }) => ({
      isolation: vmm.isolation, vmm: vmm.version, kernel: rig.repository.kernel.digest,
      agent: rig.repository.initramfs.digest,
      imageName: image.name, imageDigest: image.digest,
    }),
  };
  const pool = createPool(composition);
  const stages = createStages({ ...composition, pool });
  return {
    rig,
    vmm,
    pool,
    async run(name, workload, event, observer = {}) {
      const { digest } = await rig.repository.images.get(name);
      const image = { name, digest };
      return await runEvent(stages, { image, workload, event, limits: {}, minimumIsolation: 'tcg' }, observer);
    },
  };
}

export async function handler(path: string): Promise<Workload> {
  const packed = await packFunction({ entry: join(root, path) });
  return { kind: 'runtime', handler: packed.entry, entries: packed.entries };
}
