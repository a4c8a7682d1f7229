/**
 * What a run writes down about itself before it does it, one line each (docs/FORMATS.md). A later Mayfly reads these
 * lines when the one that wrote them is gone, so they hold all that is needed to clean up and to seal the evidence.
 */
/** A process that cannot be confused with another one: pid and start time within one boot of the host. */
export interface OwnerIdentity {
  readonly pid: number;
  readonly startTicks: string;
  /** /proc/sys/kernel/random/boot_id */
  readonly bootId: string;
}

/** Something that must be gone when the run is over. */
export type Holding =
  /** A VMM process: killed. */
  | { readonly kind: 'machine'; readonly pid: number; readonly startTicks: string }
  /** The bridge's descriptor: closed. It cannot outlive its process. */
  | { readonly kind: 'bridge'; readonly pid: number }
  /** A file or folder: removed. */
  | { readonly kind: 'path'; readonly path: string };

export type JournalEntry =
  | {
      readonly kind: 'accepted';
      readonly journalVersion: 1;
      readonly runId: string;
      readonly owner: OwnerIdentity;
      readonly acceptedAt: string;
      readonly event: { readonly digest: string; readonly bytes: number };
    }
  /** Instead of `accepted`: the folder is that of a clone that waits for an event; `runId` is its own name. */
  | { readonly kind: 'pooled'; readonly journalVersion: 1; readonly runId: string; readonly owner: OwnerIdentity }
  | { readonly kind: 'profiled'; readonly digest: string }
  /** A machine is about to be started: should its identity never follow, its parent-death signal ended it. */
  | { readonly kind: 'cloning'; readonly attempt: number }
  | { readonly kind: 'holding'; readonly holding: Holding }
  /** The event is about to be sent: from here on the run is never tried again. */
  | { readonly kind: 'delivering' }
  | { readonly kind: 'releasing'; readonly code: string }
  | { readonly kind: 'released'; readonly verified: boolean }
  | { readonly kind: 'sealed'; readonly hash: string };
