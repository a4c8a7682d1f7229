/**
 * What the tests with real machines share: the repository that set-up has filled, an engine, templates and a way to run
 * a function in a fresh clone without the rest of the product.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { openJail } from '../../src/clone/jail.ts';
import type { Jail } from '../../src/clone/jail.ts';
import { policyCompiler } from '../../src/clone/policy.ts';
import type { CompilePolicy } from '../../src/clone/policy.ts';
import { openTemplates } from '../../src/clone/template.ts';
import type { Template, Templates } from '../../src/clone/template.ts';
import { createQemu } from '../../src/clone/vmm/qemu.ts';
import type { QemuOptions } from '../../src/clone/vmm/qemu.ts';
import type { ProcessIdentity, TemplateSpec, Vmm } from '../../src/clone/vmm/contract.ts';
import type { Clock } from '../../src/core/time.ts';
import type { Random } from '../../src/core/random.ts';
import { openRepository } from '../../src/image/repository.ts';
import type { Repository } from '../../src/image/repository.ts';

export const home = process.env['MAYFLY_HOME'] ?? join(import.meta.dirname, '../../.test-home');
export const mebibyte = 1024 * 1024;
/** The class of a default profile: 256 MiB for the workload. */
export const ramBytes = 448 * mebibyte;
export const workloadId = 1000;

export const clock: Clock = {
  now: () => performance.now(),
  wallNanos: () => BigInt(Date.now()) * 1_000_000n,
  after(millis, fire) {
    const timer = setTimeout(fire, millis);
    return () => clearTimeout(timer);
  },
};

export const random: Random = { bytes: (size) => randomBytes(size) };

export interface Rig {
  readonly repository: Repository;
  readonly jail: Jail;
  readonly engine: QemuOptions;
  readonly vmm: Vmm;
  readonly templates: Templates;
  readonly compile: CompilePolicy;
  template(image: string): Promise<Template>;
  /** A template's ingredients with a folder of its own, for tests that build one. */
  spec(folder: string, image: string): Promise<TemplateSpec>;
}

export async function openRig(): Promise<Rig> {
  const repository = await openRepository(home);
  const jail = openJail({ euid: process.geteuid?.() ?? -1, pid: process.pid });
  const engine: QemuOptions = {
    binary: 'qemu-system-x86_64', version: 'QEMU (test)', accelerator: 'tcg', readOnlyRam: false, jail, clock,
  };
  const vmm = createQemu(engine);
  const builder = `${process.pid}-0`;
  const compile = policyCompiler({ home, builder });
  const templates = openTemplates({
    home, compile, builder, kernel: repository.kernel, initramfs: repository.initramfs, vmm, clock, workloadId,
    alive: async () => true,
  });
  return {
    repository, jail, engine, vmm, templates, compile,
    template: async (image) => await templates.get(await repository.images.get(image), ramBytes),
    spec: async (folder, image) => ({
      folder, kernel: repository.kernel.path, initramfs: repository.initramfs.path,
      baseImage: (await repository.images.get(image)).path, ramBytes,
    }),
  };
}

/** A private folder that is gone after `work`. */
export async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-test-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The process is there and not a zombie; shares no code with the product. */
export async function isAlive({ pid, startTicks }: ProcessIdentity): Promise<boolean> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] !== 'Z' && fields[19] === String(startTicks);
  } catch {
    return false;
  }
}
