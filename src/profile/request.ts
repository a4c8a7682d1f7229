/** What a caller may ask of a profile. Everything absent gets its default. */
import type { NetworkPolicy } from './network.ts';
import type { Reason } from './profile.ts';

interface ImageReference {
  readonly name: string;
  /** Why this one (profile/choose.ts); absent: the caller has named it. */
  readonly reasons?: readonly Reason[];
  /** `sha256:` and 64 hex digits: the base file system. */
  readonly digest: string;
  /** Names of the classes of its kernel policy; `compute` when absent. */
  readonly policy?: { readonly seccomp: string; readonly appArmor: string };
}

/** Absolute paths. */
export interface RequestedPaths {
  readonly hidden?: readonly string[];
  readonly readOnly?: readonly string[];
}

/** Units as in ProfileLimits; bounds in core/limits.ts. */
export interface RequestedLimits {
  readonly memoryBytes?: number;
  readonly wallMillis?: number;
  readonly cpuQuotaMicros?: number;
  readonly pids?: number;
  readonly openFiles?: number;
  readonly scratchBytes?: number;
  readonly diskReadBytesPerSecond?: number;
  readonly diskReadOperationsPerSecond?: number;
  readonly outputBytes?: number;
}

export interface ProfileRequest {
  readonly image: ImageReference;
  readonly limits: RequestedLimits;
  readonly paths?: RequestedPaths;
  /** The function is a server: its kernel policy is that of class `web`, whatever the image's. */
  readonly server?: boolean;
  /** The least that the function can work with; an event that gets less is refused. */
  readonly floor?: RequestedLimits;
  /** Parsed and canonical; absent: nothing can be reached. */
  readonly network?: NetworkPolicy;
  /** The weakest isolation that the caller accepts; `tcg` unless the caller insists on KVM. */
  readonly minimumIsolation: 'kvm' | 'tcg';
}
