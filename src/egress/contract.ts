/**
 * What the bridge and the egress broker know of each other. The bridge carries connections of a guest and judges
 * frames; the broker decides about connections, dials and moves bytes. Neither knows how the other does it.
 */

/** Where the guest connects to, as it says. */
export interface Target {
  /** IPv4 in its usual form. */
  readonly address: string;
  /** 1 to 65,535. */
  readonly port: number;
}

/**
 * What threat intelligence says against a destination, whatever a rule allows: as in `bad.example is listed by botnet
 * (high, confidence 90)`; undefined for nothing. Name and address are canonical, and either may be unknown. It never
 * throws.
 */
export type Denies = (destination: {
  readonly name: string | undefined;
  readonly address: string | undefined;
}) => string | undefined;

/** Why a connection is not, or not any more; `gone` is a reset without a reason. */
export type Refusal = 'gone' | 'denied' | 'unreachable' | 'timeout' | 'limit';

/** The guest's end of one connection, in the hands of the broker. After `reset` nothing more may be called. */
export interface GuestEnd {
  /** There is a connection: the guest's connect() succeeds. */
  accept(): void;
  /** Bytes for the guest. False: wait for `writable` before the next ones. */
  write(chunk: Buffer): boolean;
  /** No more bytes for the guest; what was written before still arrives. */
  end(): void;
  /** Refuses, or ends both directions at once. */
  reset(reason: Refusal): void;
  /** So many bytes of the guest have left the host: it may send as many more. */
  used(bytes: number): void;
}

/** The world's end of one connection, in the hands of the bridge. After `reset` nothing more is called. */
export interface WorldEnd {
  /** Bytes of the guest, at most a window of which `used` has not told. */
  data(chunk: Buffer): void;
  /** The guest sends no more. */
  end(): void;
  /** The guest has reset, or is gone. */
  reset(): void;
  writable(): void;
}

/** One run's way out. */
export interface Broker {
  /** The answer may come at once, through `guest`, or later. */
  open(target: Target, guest: GuestEnd): WorldEnd;
  /** The answer to one DNS message, or none. */
  query(message: Buffer): Buffer | undefined;
}
