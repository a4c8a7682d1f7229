/** What one execution may reach. Part of the Profile; parsed and judged by src/egress/. */

export interface NetworkPolicy {
  /** `none`: nothing. `rules`: what a rule allows. `audit`: everything that no rule denies. All is on record. */
  readonly mode: 'none' | 'rules' | 'audit';
  readonly rules: readonly NetworkRule[];
  readonly limits: NetworkLimits;
}

/** Applies to a connection when everything that it names does. Deny beats allow, wherever they stand. */
export interface NetworkRule {
  readonly action: 'allow' | 'deny';
  /** A name, `*.NAME` for all names below it, or `*` for all names; canonical. */
  readonly host?: string;
  /** A range of addresses, canonical. */
  readonly cidr?: string;
  /** First and last port of each range. Absent: every port. */
  readonly ports?: readonly (readonly [number, number])[];
  /** For a range that is not of the public Internet, which is otherwise denied before any rule. Needs `cidr`. */
  readonly private?: true;
}

export interface NetworkLimits {
  /** Of one run. */
  readonly connections: number;
  readonly connectionsPerSecond: number;
  /** Both directions together. */
  readonly bytes: number;
}

export const noNetwork: NetworkPolicy = Object.freeze({
  mode: 'none',
  rules: [],
  limits: { connections: 0, connectionsPerSecond: 0, bytes: 0 },
});
