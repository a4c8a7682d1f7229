/**
 * Which accelerator works here, found out by booting a real guest with it, never by the presence of /dev/kvm: on some
 * machines that device opens, creates VMs, and no guest ever boots (DESIGN.md). The verdict of a trial is cached for
 * one boot of the host, one kernel, one QEMU and one device, since any of them can change it. What costs nothing to
 * find out again (the device is missing, or not ours to open) and what says nothing about the accelerator (a full
 * disk) is not.
 */
import { access, constants, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import type { Clock } from '../core/time.ts';

export type AcceleratorMode = 'auto' | 'kvm' | 'tcg';

export interface AcceleratorVerdict {
  readonly isolation: 'kvm' | 'tcg';
  /** One sentence for people. */
  readonly why: string;
  /** Duration of the trial boot; undefined when none was needed or it did not succeed. */
  readonly trialMillis?: number;
}

export interface AcceleratorOptions {
  readonly mode: AcceleratorMode;
  /** Of the host's accelerator: /dev/kvm. */
  readonly device: string;
  readonly home: string;
  /** /proc/sys/kernel/random/boot_id of the host. */
  readonly hostBootId: string;
  readonly kernelDigest: string;
  readonly qemuVersion: string;
  readonly clock: Clock;
  /** Boots a guest under KVM until its agent says hello; rejects when that fails or takes longer than the limit. */
  readonly trialBoot: () => Promise<void>;
}

/** Rejects with E_ACCELERATOR when `kvm` is demanded and does not work. */
export async function chooseAccelerator(options: AcceleratorOptions): Promise<AcceleratorVerdict> {
  if (options.mode === 'tcg') return { isolation: 'tcg', why: 'software emulation was asked for' };
  const verdict = (await closedDevice(options)) ?? (await cachedVerdict(options)) ?? (await tryKvm(options));
  if (options.mode === 'kvm' && verdict.isolation !== 'kvm') throw new MayflyError('E_ACCELERATOR', verdict.why);
  return verdict;
}

/** Undefined when the device can be opened. */
async function closedDevice({ device }: AcceleratorOptions): Promise<AcceleratorVerdict | undefined> {
  try {
    await access(device, constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    return { isolation: 'tcg', why: `${device} cannot be opened (${code})` };
  }
}

async function tryKvm(options: AcceleratorOptions): Promise<AcceleratorVerdict> {
  const started = options.clock.now();
  const spent = (): number => Math.round(options.clock.now() - started);
  try {
    await options.trialBoot();
    const trialMillis = spent();
    const why = `a guest booted under KVM in ${trialMillis} ms`;
    return await remember(options, { isolation: 'kvm', why, trialMillis });
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    const why = `${options.device} opens, but a guest did not boot with it (${reason}, ${spent()} ms)`;
    const tried = thrown instanceof MayflyError && thrown.code === 'E_TEMPLATE_BUILD';
    return tried ? await remember(options, { isolation: 'tcg', why }) : { isolation: 'tcg', why };
  }
}

interface CachedVerdict extends AcceleratorVerdict {
  readonly hostBootId: string;
  readonly kernelDigest: string;
  readonly qemuVersion: string;
  /** Which device it was: it may be attached to a running machine, or given to other people, later. */
  readonly device: string;
}

async function cachedVerdict(options: AcceleratorOptions): Promise<AcceleratorVerdict | undefined> {
  try {
    const cached = JSON.parse(await readFile(cachePath(options), 'utf8')) as CachedVerdict;
    const current =
      cached.hostBootId === options.hostBootId &&
      cached.kernelDigest === options.kernelDigest &&
      cached.qemuVersion === options.qemuVersion &&
      cached.device === (await deviceIdentity(options.device));
    return current && (cached.isolation === 'kvm' || cached.isolation === 'tcg') ? cached : undefined;
  } catch {
    return undefined;
  }
}

async function remember(options: AcceleratorOptions, verdict: AcceleratorVerdict): Promise<AcceleratorVerdict> {
  const { hostBootId, kernelDigest, qemuVersion } = options;
  const device = await deviceIdentity(options.device);
  const record: CachedVerdict = { ...verdict, hostBootId, kernelDigest, qemuVersion, device };
  await mkdir(options.home, { recursive: true, mode: 0o700 });
  const path = cachePath(options);
  const temporary = `${path}.${hostBootId}.${Math.round(options.clock.now() * 1000)}`;
  await writeFile(temporary, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, path);
  return verdict;
}

async function deviceIdentity(device: string): Promise<string> {
  const { rdev, mode, gid } = await stat(device);
  return `${rdev}:${mode}:${gid}`;
}

function cachePath(options: AcceleratorOptions): string {
  return join(options.home, 'accelerator.json');
}

