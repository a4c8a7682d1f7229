/** Proof that what a run held is gone, or the list of what is not. */
export interface Release {
  /** Looked for independently and found gone: everything. Only then may a run be sealed. */
  readonly verified: boolean;
  /** What the ledger had on record, as in `process 4711`, in the order it was released. */
  readonly released: readonly string[];
  /** What is still there, with the reason where there is one. */
  readonly left: readonly string[];
}
