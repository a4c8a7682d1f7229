/** What one execution may reach. Part of the Profile; parsed and judged by src/egress/. */
import { limits } from '../core/limits.ts';

export interface NetworkPolicy {
  /** `none`: nothing. `rules`: what a rule allows. `audit`: everything that no rule denies. All is on record. */
  readonly mode: 'none' | 'rules' | 'audit';
  readonly rules: readonly NetworkRule[];
  readonly tls: TlsPolicy;
  readonly limits: NetworkLimits;
}

/** What becomes of TLS that does not say, where everybody can read it, whom it is for. */
export interface TlsPolicy {
  /** A ClientHello without a server name, on a connection to a name. */
  readonly noName: 'deny' | 'allow';
  /** A ClientHello that is encrypted for another name (ECH). */
  readonly ech: 'deny' | 'allow';
}

/** What is spoken on a connection, as far as its bytes tell; `tcp` is neither of the others. */
export type Protocol = 'tcp' | 'tls' | 'http';

/** Applies to a connection when everything that it names does. Deny beats allow, wherever they stand. */
export interface NetworkRule {
  readonly action: 'allow' | 'deny';
  /** A name, `*.NAME` for all names below it, or `*` for all names; canonical. */
  readonly host?: string;
  /** A range of addresses, canonical. */
  readonly cidr?: string;
  /** First and last port of each range. Absent: every port. */
  readonly ports?: readonly (readonly [number, number])[];
  readonly protocol?: Protocol;
  /** HTTP only: applies to these methods. */
  readonly methods?: readonly string[];
  /** HTTP only: applies to these paths, without their query; a last `*` stands for anything that follows. */
  readonly paths?: readonly string[];
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

/** Where rules allow something and the caller has not said how much. */
export const defaultNetworkLimits: NetworkLimits = Object.freeze({
  connections: limits.egressConnectionsTotalMax,
  connectionsPerSecond: limits.egressConnectionsPerSecond,
  bytes: limits.egressBytesDefault,
});

export const noNetwork: NetworkPolicy = Object.freeze<NetworkPolicy>({
  mode: 'none',
  rules: [],
  tls: { noName: 'deny', ech: 'deny' },
  limits: { connections: 0, connectionsPerSecond: 0, bytes: 0 },
});
