/**
 * What Mayfly needs from a virtual machine monitor, and nothing more. `qemu.ts` runs real machines, `fake.ts` plays
 * them for simulation; test/vm/parity.test.ts runs one suite against both.
 *
 * A machine's life: spawned (process waits, state loaded, paused) -> resumed -> killed. There is no way back and no
 * second event: a machine that has been resumed can only be killed.
 */
import type { Duplex } from 'node:stream';

/** Recorded in every evidence record. `tcg` is software emulation and gives no isolation promise; `fake` is a test. */
export type Isolation = 'kvm' | 'tcg' | 'fake';

/** What a template is booted from. Paths are absolute and their files immutable. */
export interface TemplateSpec {
  /** Folder to build in; it receives `ram` and `state` and belongs to the template alone. */
  readonly folder: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** Read-only base file system (erofs or squashfs), the guest's /dev/vda. */
  readonly baseImage: string;
  /** Read-only file systems above it, the lowest first; at most `limits.imageLayersMax - 1`. */
  readonly layers?: readonly string[];
  /** RAM of the machine, bytes, a multiple of 1 MiB. */
  readonly ramBytes: number;
}

/** A template at rest: RAM image and device state of a stopped machine. Never written again. */
export interface TemplateState extends TemplateSpec {
  /** RAM image; clones map it copy-on-write. */
  readonly ram: string;
  /** Device state as the VMM saved it, without RAM. */
  readonly state: Buffer;
}

/** Identity of a process that survives pid reuse. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, clock ticks since boot. */
  readonly startTicks: bigint;
}

export interface MachineExit {
  readonly exitCode: number | null;
  readonly signal: string | null;
}

/** A clone has one disk, which it can only read. */
export interface DiskRates {
  readonly readBytesPerSecond: number;
  readonly readOperationsPerSecond: number;
}

export interface Machine {
  readonly identity: ProcessIdentity;
  /** The bridge's bytes: whatever is written arrives at the agent's port and the other way round. */
  readonly bridge: Duplex;
  /** Settles, never rejects, when the process is gone and reaped. */
  readonly exited: Promise<MachineExit>;
  /** Settles, never rejects, with the reason when the guest has stopped by itself: panic, power-off, reset, or exit. */
  readonly halted: Promise<string>;
  /** How fast it may read its disk, from now on. Rejects with E_CLONE_FAILED. */
  limitDisk(rates: DiskRates): Promise<void>;
  /** What the VMM says is in force. Rejects with E_CLONE_FAILED. */
  diskRates(): Promise<DiskRates>;
  /** Starts the virtual CPUs. Once only. */
  resume(): Promise<void>;
  /** Stops the virtual CPUs for good. After that the machine can be looked at, and killed. */
  freeze(): Promise<void>;
  /** Of a frozen machine: what its memory has that its template's has not. Rejects when it cannot be looked at. */
  memory(): MachineMemory;
  /** SIGKILL. Idempotent; resolves when the process is reaped and rejects only when that takes too long. */
  kill(): Promise<void>;
  /**
   * The end of the guest's console, at most `limits.consoleBytesMax`, control characters removed; '' when there is
   * none.
   */
  consoleTail(): Promise<string>;
}

/** Pages of 4096 bytes, by their number from the beginning of the RAM image, rising. */
export interface ChangedPages {
  readonly numbers: Uint32Array;
  readonly bytes: Buffer;
}

export interface MachineMemory {
  readonly ramBytes: number;
  /** RAM image that everything else is as in. */
  readonly base: string;
  /** Registers of the virtual CPU, as the VMM prints them; '' when it says nothing. */
  registers(): Promise<string>;
  /** Every page that was written to since the machine was spawned, in pieces. */
  changed(): AsyncIterable<ChangedPages>;
}

/** Called with a booting template's bridge; resolves when the guest is ready to be stopped and saved. */
export type Prepare = (bridge: Duplex) => Promise<void>;

export interface Vmm {
  readonly isolation: Isolation;
  /** Name and version, as in `QEMU 7.2.22`: part of a template's key and of the evidence. */
  readonly version: string;
  /** Boots, prepares, stops and saves. Rejects with E_TEMPLATE_BUILD and the console's tail; leaves no process. */
  buildTemplate(spec: TemplateSpec, prepare: Prepare): Promise<TemplateState>;
  /** A machine with the template's state loaded, paused. Rejects with E_CLONE_FAILED; leaves no process. */
  spawn(template: TemplateState): Promise<Machine>;
}
