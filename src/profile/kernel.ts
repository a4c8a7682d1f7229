/** What a profile says about the kernel, as the bytes that are sent: text of a policy, program of a filter. Pure. */
import { digestOf } from '../core/json.ts';
import { appArmorText } from './apparmor.ts';
import type { ExecuteLevel } from './apparmor.ts';
import { parsingClasses } from './classes.ts';
import type { PolicyClass } from './classes.ts';
import type { NetworkPolicy } from './network.ts';
import type { Profile } from './profile.ts';
import { seccompFilter } from './seccomp.ts';
import type { SyscallLevel } from './seccomp.ts';

type FileSystem = Profile['fileSystem'];

/** The policy's text: what `kernel.appArmor.digest` is the digest of. */
export function appArmorOf({ kernel, network, fileSystem }: Profile): string {
  return text(kernel.appArmor.class, kernel.execute, network, fileSystem);
}

/** The filter's program: what `kernel.seccomp.digest` is the digest of. */
export function filterOf({ kernel, network }: Profile): Buffer {
  return filter(kernel.seccomp.class, kernel.syscalls, network).program;
}

export function appArmorDigest(
  functionClass: PolicyClass,
  execute: ExecuteLevel,
  network: NetworkPolicy,
  fileSystem: FileSystem,
): string {
  return digestOf(text(functionClass, execute, network, fileSystem));
}

export function filterDigest(functionClass: PolicyClass, level: SyscallLevel, network: NetworkPolicy): string {
  return filter(functionClass, level, network).digest;
}

function text(functionClass: PolicyClass, execute: ExecuteLevel, network: NetworkPolicy, files: FileSystem): string {
  return appArmorText({ functionClass, execute, network: hasSockets(functionClass, network), ...files });
}

/** There are few of them, and a profile is to be decided within a fraction of a millisecond. */
const filters = new Map<string, ReturnType<typeof seccompFilter>>();

function filter(functionClass: PolicyClass, level: SyscallLevel, policy: NetworkPolicy) {
  const network = hasSockets(functionClass, policy);
  const key = `${functionClass} ${level} ${network}`;
  const known = filters.get(key) ?? seccompFilter({ functionClass, level, network });
  filters.set(key, known);
  return known;
}

function hasSockets(functionClass: PolicyClass, { mode }: NetworkPolicy): boolean {
  return mode !== 'none' || !parsingClasses.has(functionClass);
}
