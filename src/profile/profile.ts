/**
 * A Profile is exactly what one execution may do. It is computed before there is a clone, frozen, and identified by the
 * SHA-256 of its canonical JSON; the clone must prove it before the event is delivered. docs/FORMATS.md has the format.
 */

import type { ExecuteLevel } from './apparmor.ts';
import type { PolicyClass } from './classes.ts';
import type { NetworkPolicy } from './network.ts';
import type { SyscallLevel } from './seccomp.ts';

export interface Profile {
  readonly profileVersion: 1;
  readonly image: {
    readonly name: string;
    /** `sha256:` and 64 hex digits: the base file system. */
    readonly digest: string;
  };
  readonly shape: {
    readonly vcpus: 1;
    /** RAM of the VM, bytes; it holds the workload's limit and the guest's own need. */
    readonly ramBytes: number;
  };
  readonly network: NetworkPolicy;
  readonly limits: ProfileLimits;
  readonly kernel: {
    readonly uid: number;
    readonly gid: number;
    readonly noNewPrivileges: true;
    /** Capabilities that the workload keeps. */
    readonly capabilities: readonly string[];
    /** The kernel's module that holds the workload to the policy. */
    readonly lsm: 'apparmor';
    readonly syscalls: SyscallLevel;
    readonly execute: ExecuteLevel;
    /** `digest`: SHA-256 of the filter, a program that follows from class, `syscalls` and network. */
    readonly seccomp: { readonly class: PolicyClass; readonly digest: string };
    /** `digest`: SHA-256 of the policy's text, which follows from class, `execute`, network and file system. */
    readonly appArmor: { readonly class: PolicyClass; readonly digest: string };
  };
  /** Absolute paths, sorted; each with all that is in it. */
  readonly fileSystem: {
    /** All together hold `limits.scratchBytes`. Nothing else can be written. */
    readonly writable: readonly string[];
    /** Within what is writable. */
    readonly readOnly: readonly string[];
    /** Can be neither opened, listed nor executed. */
    readonly hidden: readonly string[];
  };
  readonly isolation: {
    /** The weakest isolation that this event may run under. */
    readonly minimum: 'kvm' | 'tcg';
  };
  readonly forensics: {
    /** When the end of a clone is kept for who has to look at it. */
    readonly capture: ForensicsCapture;
    readonly retentionDays: number;
  };
}

export type ForensicsCapture = 'never' | 'sample' | 'on-violation' | 'always';

export interface ProfileLimits {
  /** Workload memory (cgroup memory.max), bytes; swap is always zero. */
  readonly memoryBytes: number;
  /** CPU time per period (cgroup cpu.max), microseconds. */
  readonly cpuQuotaMicros: number;
  readonly cpuPeriodMicros: number;
  /** Processes and threads (cgroup pids.max). */
  readonly pids: number;
  /** RLIMIT_NOFILE. */
  readonly openFiles: number;
  /** Wall time of the handler, ms, from delivery of the event. */
  readonly wallMillis: number;
  /** Size of the writable overlay, bytes. */
  readonly scratchBytes: number;
  /** Of the base image, by the VMM: a clone has no other disk, and none that it could write. */
  readonly diskReadBytesPerSecond: number;
  readonly diskReadOperationsPerSecond: number;
  readonly stdoutBytes: number;
  readonly stderrBytes: number;
  readonly outputBytes: number;
}

/** Why a field has its value: `default`, or who asked for it. The last one that is not overruled has set it. */
export interface Reason {
  /** Dotted path into the profile, as in `limits.memoryBytes`. */
  readonly field: string;
  readonly because: string;
  /** It was considered, and something stricter or larger has set the field. */
  readonly overruled?: true;
}

export interface SealedProfile {
  readonly profile: Profile;
  /** `sha256:` and 64 hex digits over the canonical JSON of `profile`. */
  readonly digest: string;
  readonly reasons: readonly Reason[];
}
