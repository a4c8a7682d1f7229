/**
 * Which accelerator works here, found out by booting a real guest with it, never by the presence of /dev/kvm: on some
 * machines that device opens, creates VMs, and no guest ever boots (DESIGN.md). The verdict is cached for one boot of
 * the host, one kernel and one QEMU, since any of the three can change it.
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
  const verdict = (await cachedVerdict(options)) ?? (await remember(options, await tryKvm(options)));
  if (options.mode === 'kvm' && verdict.isolation !== 'kvm') throw new MayflyError('E_ACCELERATOR', verdict.why);
  return verdict;
}

async function tryKvm(options: AcceleratorOptions): Promise<AcceleratorVerdict> {
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    return { isolation: 'tcg', why: `/dev/kvm cannot be opened (${code})` };
  }
  const started = options.clock.now();
  try {
    await options.trialBoot();
    const trialMillis = Math.round(options.clock.now() - started);
    return { isolation: 'kvm', why: `a guest booted under KVM in ${trialMillis} ms`, trialMillis };
  } catch (thrown) {
    const millis = Math.round(options.clock.now() - started);
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    return { isolation: 'tcg', why: `/dev/kvm opens, but a guest did not boot with it (${reason}, ${millis} ms)` };
  }
}

interface CachedVerdict extends AcceleratorVerdict {
  readonly hostBootId: string;
  readonly kernelDigest: string;
  readonly qemuVersion: string;
  /** Whether /dev/kvm existed: it may be attached to a running machine later. */
  readonly device: string;
}

async function cachedVerdict(options: AcceleratorOptions): Promise<AcceleratorVerdict | undefined> {
  try {
    const cached = JSON.parse(await readFile(cachePath(options), 'utf8')) as CachedVerdict;
    const current =
      cached.hostBootId === options.hostBootId &&
      cached.kernelDigest === options.kernelDigest &&
      cached.qemuVersion === options.qemuVersion &&
      cached.device === (await deviceIdentity());
    return current && (cached.isolation === 'kvm' || cached.isolation === 'tcg') ? cached : undefined;
  } catch {
    return undefined;
  }
}

async function remember(options: AcceleratorOptions, verdict: AcceleratorVerdict): Promise<AcceleratorVerdict> {
  const { hostBootId, kernelDigest, qemuVersion } = options;
  const record: CachedVerdict = { ...verdict, hostBootId, kernelDigest, qemuVersion, device: await deviceIdentity() };
  await mkdir(options.home, { recursive: true, mode: 0o700 });
  const path = cachePath(options);
  const temporary = `${path}.${hostBootId}.${Math.round(options.clock.now() * 1000)}`;
  await writeFile(temporary, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, path);
  return verdict;
}

async function deviceIdentity(): Promise<string> {
  try {
    const found = await stat('/dev/kvm');
    return `${found.rdev}:${found.mode}:${found.gid}`;
  } catch {
    return 'absent';
  }
}

function cachePath(options: AcceleratorOptions): string {
  return join(options.home, 'accelerator.json');
}

