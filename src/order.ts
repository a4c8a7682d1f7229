/** What the command line and the service ask of the App, and what it is made of: types only. */
import type { AcceleratorMode, AcceleratorVerdict } from './clone/accelerator.ts';
import type { QemuFacts } from './clone/probe.ts';
import type { Templates } from './clone/template.ts';
import type { Vmm } from './clone/vmm/contract.ts';
import type { Disk } from './core/disk.ts';
import type { RunId } from './core/ids.ts';
import type { Random } from './core/random.ts';
import type { Clock } from './core/time.ts';
import type { Workload } from './event/workload.ts';
import type { FunctionClass } from './image/manifest.ts';
import type { Assessment } from './intel/assess.ts';
import type { Attachment } from './intel/observe.ts';
import type { Complexity } from './profile/complexity.ts';
import type { NetworkPolicy } from './profile/network.ts';
import type { PolicyInput } from './policy.ts';
import type { RequestedLimits, RequestedPaths } from './profile/request.ts';
import type { Processes } from './release/processes.ts';
import type { RunObserver } from './stages.ts';
import type { OutputOrder } from './output.ts';
import type { SealedProfile } from './profile/profile.ts';

export interface AppOptions {
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly processes: Processes;
  readonly euid: number;
  readonly pid: number;
  /**
   * Value of an environment variable: credentials of threat feeds are named in their configuration, not written
   * there.
   */
  environment(name: string): string | undefined;
}

/** What is thought of an event before it runs; nothing was run. */
export interface ScoredEvent extends Assessment {
  readonly observables: readonly { readonly kind: string; readonly value: string; readonly where: string }[];
  readonly attachments: readonly Omit<Attachment, 'content'>[];
  readonly complexity: Complexity;
  readonly notes: readonly string[];
}

export interface Engine {
  readonly vmm: Vmm;
  readonly qemu: QemuFacts;
  readonly accelerator: AcceleratorVerdict;
  readonly templates: Templates;
}

/** What to run on which event, in which image, within which limits. */
export interface RunOrder {
  /** Name, `name:tag` or digest; absent: chosen by what the function is and the event carries. */
  readonly image?: string;
  readonly functionClass?: FunctionClass;
  /** Of a handler, as in `python3`; null for an executable. */
  readonly language: string | null;
  /** Runs the image also when no trusted key has signed it. */
  readonly allowUnsigned?: boolean;
  readonly workload: Workload;
  /** UTF-8 JSON. */
  readonly event: Buffer;
  readonly limits: RequestedLimits;
  readonly paths?: RequestedPaths;
  /** An event that would get less is refused. */
  readonly floor?: RequestedLimits;
  /** Absent: nothing can be reached. */
  readonly network?: NetworkPolicy;
  readonly accelerator: AcceleratorMode;
  readonly policy?: PolicyInput;
  readonly output?: OutputOrder;
  /** Keep the clone's end, whatever its profile says. */
  readonly keep?: boolean;
  /** The profile itself, of a run that is done again: nothing else decides it. */
  readonly profile?: SealedProfile;
  /** Known to the caller before there is a run; otherwise a new one is made. */
  readonly runId?: RunId;
  readonly signal?: AbortSignal;
}

/** What the choice of an image rests on; `language` undefined: not known. */
export interface ImageOrder extends Pick<RunOrder, 'image' | 'functionClass' | 'workload' | 'event' | 'policy'> {
  readonly language?: string | null | undefined;
}

export interface AppObserver extends RunObserver {
  /** Something that takes seconds has begun, as in `booting a node template`. */
  progress?(what: string): void;
  /** Known before the event is accepted. */
  engine?(engine: Engine): void;
}
