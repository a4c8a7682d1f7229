/**
 * The trial boot of an accelerator: the real guest, from power-on until its agent is ready, in a folder that is gone
 * afterwards. A device that exists, opens and makes VMs proves nothing: on some machines no guest ever boots with it.
 */
import { prepareTemplate } from '../bridge/session.ts';
import type { Disk } from '../core/disk.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import { templatePolicyText } from '../profile/apparmor.ts';
import type { CompilePolicy } from './policy.ts';
import type { Prepare, TemplateSpec } from './vmm/contract.ts';

export interface TrialOptions {
  /** Made for the trial and removed with all that is in it. */
  readonly folder: string;
  /** Boots a machine, hands its bridge to `prepare`, kills it; leaves no process. */
  readonly boot: (spec: TemplateSpec, prepare: Prepare) => Promise<void>;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly kernel: string;
  readonly initramfs: string;
  readonly baseImage: string;
  /** Uid and gid of the workload in the guest. */
  readonly workloadId: number;
  readonly compile: CompilePolicy;
  /** For the agent's first word, and again until it is ready. */
  readonly millisMax: number;
}

/** Rejects with E_TEMPLATE_BUILD when the guest does not boot, or not in time. */
export async function trialBoot(options: TrialOptions): Promise<void> {
  const { folder, disk, clock, workloadId, millisMax, kernel, initramfs, baseImage } = options;
  await disk.makeFolder(folder);
  try {
    const spec = { folder, kernel, initramfs, baseImage, ramBytes: TRIAL_RAM_BYTES };
    await options.boot(spec, async (transport) => {
      const scratchBytes = limits.scratchBytesDefault;
      const prepare = { argv: [], env: [], uid: workloadId, gid: workloadId, scratchBytes };
      const bounds = { bootMillisMax: millisMax, warmMillisMax: millisMax };
      const policy = (features: string): Promise<Buffer> => options.compile(templatePolicyText, features);
      await prepareTemplate({ transport, clock, prepare, policy, bounds });
    });
  } finally {
    await disk.remove(folder);
  }
}

/** Enough for kernel, agent and the scratch space that it makes. */
const TRIAL_RAM_BYTES = 256 * 1024 * 1024;
