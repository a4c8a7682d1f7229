/**
 * Runs through the whole product in a guest that has lost its kernel (guest/hostile.c): the real pipeline, the real
 * QEMU in its jail, and an initramfs with one hostile process more. Slow to make: its template is kept like any other.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run as runProgram } from '../../scripts/setup/command.ts';
import { writeCpio } from '../../scripts/setup/cpio.ts';
import { openTemplates } from '../../src/clone/template.ts';
import type { Machine, MachineExit, Vmm } from '../../src/clone/vmm/contract.ts';
import type { QemuProcess } from '../../src/clone/vmm/process.ts';
import { openKeys } from '../../src/image/keys.ts';
import { createStages } from '../../src/compose.ts';
import { createDisk } from '../../src/core/disk.ts';
import { digestOf } from '../../src/core/json.ts';
import { realNetwork } from '../../src/egress/network.ts';
import { openStore } from '../../src/image/store.ts';
import { runEvent } from '../../src/pipeline.ts';
import { createProcesses } from '../../src/release/processes.ts';
import type { Outcome } from '../../src/stages.ts';
import { clock, home, openRig, random } from '../vm/rig.ts';

const root = join(import.meta.dirname, '../..');

export interface Aftermath {
  readonly outcome: Outcome;
  /** VMMs that were started for the run. */
  readonly machines: readonly Machine[];
  /** What the guest said on its console before the run ended; empty when the VMM was gone. */
  readonly console: string;
  /** How the VMM ended; killed by Mayfly is SIGKILL. */
  readonly exit: MachineExit | undefined;
  /** Ended before Mayfly killed it. */
  readonly diedByItself: boolean;
}

export interface HostileGuest {
  /** A run whose function asks for an attack; `watch` is called with its VMM before the event is sent. */
  attack(kind: string, options?: AttackOptions): Promise<Aftermath>;
  /** A run in an innocent clone. */
  neighbour(): Promise<Outcome>;
  close(): Promise<void>;
}

export interface AttackOptions {
  readonly wallMillis?: number;
  readonly watch?: (machine: QemuProcess) => void;
}

export async function openHostileGuest(): Promise<HostileGuest> {
  const rig = await openRig();
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-hostile-'));
  const initramfs = join(folder, 'initramfs');
  await buildInitramfs(folder, initramfs);
  const processes = createProcesses();
  const startTicks = String(await processes.startTicks(process.pid));
  const owner = { pid: process.pid, startTicks, bootId: await processes.bootId() };
  const image = await rig.repository.images.get('shell');
  const hostile = openTemplates({
    home, kernel: rig.repository.kernel,
    initramfs: { path: initramfs, digest: digestOf(await readFile(initramfs)) },
    vmm: rig.vmm, clock, compile: rig.compile, workloadId: 1000, builder: `${process.pid}-0`, alive: async () => true,
  });

  async function run(kind: string, hostileGuest: boolean, vmm: Vmm, wallMillis: number): Promise<Outcome> {
    const stages = createStages({
      home: folder, clock, random, vmm, processes, owner, disk: createDisk(), network: realNetwork(),
      template: ({ shape }) => (hostileGuest ? hostile : rig.templates).get(image, shape.ramBytes),
      origin: () => ({
        isolation: vmm.isolation, vmm: vmm.version, kernel: rig.repository.kernel.digest,
        agent: rig.repository.initramfs.digest, imageName: image.name, imageDigest: image.digest,
      }),
      snapshotBudgetBytes: 0, signer: await openKeys(folder, random).own(),
    });
    const name = `attack-${kind}`;
    const lines = ['#!/bin/sh', 'read event', ...(hostileGuest ? ['sleep 60'] : []), 'echo "$event"', ''];
    const content = Buffer.from(lines.join('\n'));
    const entries = [{ kind: 'file', path: name, mode: 0o755, content }] as const;
    const workload = { kind: 'executable', argv: [`/function/${name}`], raw: true, entries } as const;
    const asked = { name: image.name, digest: image.digest };
    const event = Buffer.from(JSON.stringify({ asked: kind }));
    return await runEvent(stages, {
      image: asked, workload, event, limits: { wallMillis }, minimumIsolation: 'tcg',
    });
  }

  return {
    async attack(kind, { wallMillis = 20_000, watch } = {}) {
      const machines: QemuProcess[] = [];
      const seen = { console: '', diedByItself: false };
      const vmm: Vmm = {
        ...rig.vmm,
        async spawn(template) {
          const machine = (await rig.vmm.spawn(template)) as QemuProcess;
          machines.push(machine);
          watch?.(machine);
          const kill = machine.kill.bind(machine);
          let ended = false;
          void machine.exited.then(() => { ended = true; });
          machine.kill = async () => {
            if (!ended) seen.console += await machine.consoleTail();
            else seen.diedByItself ||= machines.length === 1;
            await kill();
            ended = true;
          };
          return machine;
        },
      };
      const outcome = await run(kind, true, vmm, wallMillis);
      const exit = await machines[0]?.exited;
      return { outcome, machines, exit, ...seen };
    },
    neighbour: () => run('nothing', false, rig.vmm, 30_000),
    close: () => rm(folder, { recursive: true, force: true }),
  };
}

async function buildInitramfs(folder: string, target: string): Promise<void> {
  const agent = join(root, 'guest/agent');
  const sources = (await readdir(agent)).filter((name) => name.endsWith('.c')).map((name) => join(agent, name));
  const init = join(folder, 'init');
  const hostile = join(import.meta.dirname, 'guest/hostile.c');
  const flags = ['-std=gnu11', '-O1', '-static', '-s', '-Wall', '-Wextra', '-Werror'];
  await runProgram(['musl-gcc', ...flags, '-o', init, ...sources, hostile], { cwd: agent });
  const modules = await openStore(home).find('modules');
  if (modules === undefined) throw new Error('there are no kernel modules: npm run setup');
  const folders = ['dev', 'image', 'overlay', 'proc', 'sys'].map((path) => ({ kind: 'folder', path }) as const);
  const entry = { kind: 'file', path: 'init', mode: 0o555, content: await readFile(init) } as const;
  await writeFile(target, Buffer.concat([writeCpio([...folders, entry]), await readFile(modules.path)]));
}
