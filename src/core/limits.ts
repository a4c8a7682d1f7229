/**
 * Every cap in Mayfly, with its unit and its reason.
 *
 * A hostile guest, caller or file may push against each of these numbers, so nothing in the product loops, queues,
 * buffers, reads or waits without naming one of them. The relations between them are asserted when this module loads:
 * a limit that contradicts another one is a bug in the build, not a surprise in production.
 */

import { egressLimits } from './egress-limits.ts';
import { intelLimits } from './intel-limits.ts';
import { serviceLimits } from './service-limits.ts';
import { imageLimits } from './image-limits.ts';
import { outputLimits } from './output-limits.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const limits = Object.freeze({
  ...intelLimits,

  // ---- event -------------------------------------------------------------------------------------------------------
  /** Encoded event, bytes. Larger payloads belong in object storage with a reference in the event. */
  eventBytesMax: 6 * MiB,
  /** Nesting of an event's JSON. Deep nesting costs stack in every parser that meets it, also in the guest. */
  eventDepthMax: 128,

  // ---- function code -----------------------------------------------------------------------------------------------
  /** Sum of all files of one function, bytes. It is written into the clone's scratch memory. */
  codeBytesMax: 64 * MiB,
  /** Files, folders and links of one function. A large node_modules has about 10,000. */
  codeEntriesMax: 20_000,
  /** One path inside a function, bytes. */
  codePathBytesMax: 1024,
  /** Environment variables of one function that a caller sets. */
  envEntriesMax: 64,
  /** Their names and values together, bytes: one message to the guest carries them beside the arguments. */
  envBytesMax: 16 * KiB,

  // ---- bridge ------------------------------------------------------------------------------------------------------
  /** Header of a frame, bytes (docs/FORMATS.md). */
  frameHeaderBytes: 24,
  /** Payload of one frame, bytes. Checked against the header before anything is allocated. */
  framePayloadBytesMax: 64 * KiB,
  /** Bytes a sender may have under way on one stream before the receiver grants more. */
  streamWindowBytes: 256 * KiB,
  /** One field of a message, bytes. */
  fieldBytesMax: 32 * KiB,
  /** Fields of one message. A proof has about 40. */
  fieldsMax: 512,
  /** Bytes waiting in the host for a guest that does not read, per clone. */
  writeQueueBytesMax: 2 * MiB,
  /** A frame that has begun must be complete within this time, ms (a guest that sends a byte a second). */
  frameMillisMax: 5_000,
  /** The guest must have read what the host's transport holds for it within this time, ms. */
  writeStallMillisMax: 10_000,

  ...egressLimits,

  // ---- guest output ------------------------------------------------------------------------------------------------
  /** Function result, bytes: the most a profile may ask for. */
  outputBytesMax: 6 * MiB,
  /** Nesting of a function's JSON result. */
  outputDepthMax: 128,
  /** What a runtime puts around a result, bytes: `{"ok":true,"value":` and `}`. */
  envelopeBytes: 64,
  /** Result stream of a runtime whatever the limit of its result, bytes: an error with its stack must fit as well. */
  runtimeOutputFloorBytes: 64 * KiB,
  /** Facts and differences of one proof that are kept in the evidence, and UTF-16 units of each. */
  proofLinesKept: 128,
  proofLineUnits: 300,
  /** Lines of a VM's console that are shown with a failure. */
  consoleLinesShown: 20,
  /** Name, message and stack of a customer's error that are shown, UTF-16 units. */
  errorNameUnits: 100,
  errorMessageUnits: 1_000,
  errorStackUnits: 8_000,
  /** End of stderr that is kept to explain why a runtime died, bytes: V8's last words have about 3 KB. */
  stderrTailBytes: 16 * KiB,
  /** stdout kept per run, bytes; the rest is dropped in the guest and marked as truncated. */
  stdoutBytesMax: 1 * MiB,
  /** stderr kept per run, bytes. */
  stderrBytesMax: 1 * MiB,

  // ---- time --------------------------------------------------------------------------------------------------------
  /** Boot of a template until its agent says hello, ms. TCG on loaded cores: 2-7 s measured. */
  bootMillisMax: 90_000,
  /** Warm-up of a language runtime inside a template, ms. TCG: 2-6 s measured. */
  warmMillisMax: 90_000,
  /** Waiting for another process that builds the template that is wanted, ms: longer than any build may take. */
  templateWaitMillisMax: 240_000,
  /** Such a wait looks up this often, ms: a Ctrl-C is heard no later. */
  templateWaitStepMillis: 1_000,
  /** Trial boot that decides whether an accelerator works, ms. A working KVM needs well under one second. */
  trialBootMillisMax: 8_000,
  /** Any QMP command, ms. Slowest measured: saving device state, 10-60 ms. */
  qmpCommandMillisMax: 10_000,
  /** Start of a VMM process until QMP greets, ms. */
  vmmStartMillisMax: 10_000,
  /** Resume of a clone until it has proved to be unique, ms. Part of the watchdog that may retry once. */
  adoptMillisMax: 5_000,
  /** A clone's clock against the host's after it was set, ms. Under TCG a clone may be that late to read it. */
  clockToleranceMillis: 1_000,
  /** Configure (limits and code) until the clone's proof has arrived, ms. */
  configureMillisMax: 30_000,
  /** Exit of a killed process until it is reaped, ms. Typically 5-10 ms. */
  reapMillisMax: 5_000,
  /** Handler's wall time: default, ms. */
  wallMillisDefault: 30_000,
  /** Handler's wall time: the most a caller may ask for, ms. */
  wallMillisMax: 900_000,

  // ---- resources of one clone --------------------------------------------------------------------------------------
  /** Memory of the workload: default and bounds, bytes. */
  memoryBytesDefault: 256 * MiB,
  memoryBytesMin: 96 * MiB,
  memoryBytesMax: 4 * GiB,
  /** Memory that kernel, agent and warm runtime need beside the function, bytes. Node: 60 MiB of code and heap. */
  guestOverheadBytes: 160 * MiB,
  /** Writable overlay (tmpfs) of a clone: default, bytes. */
  scratchBytesDefault: 64 * MiB,
  /** Writable overlay: the most a caller may ask for, bytes. What is written there counts as workload memory. */
  scratchBytesMax: 1 * GiB,
  /** Reads of a clone's disk, bytes and operations per second. With fewer, a program would take minutes to start. */
  diskReadBytesDefault: 256 * MiB, diskReadBytesMax: 4 * GiB,
  diskReadOperationsMin: 50, diskReadOperationsDefault: 20_000, diskReadOperationsMax: 1_000_000,
  /** Processes and threads of the workload. Node alone has 11. */
  pidsDefault: 128,
  /** Processes and threads: the most a caller may ask for. */
  pidsMax: 4096,
  /** Open files of the workload. */
  openFilesDefault: 1024,
  /** Open files: the most a caller may ask for. */
  openFilesMax: 65_536,
  /** What forensics keeps: default and most, days. */
  retentionDaysDefault: 30,
  retentionDaysMax: 365,
  /** CPU bandwidth period of cgroup v2, microseconds. */
  cpuPeriodMicros: 100_000,
  /** Least CPU time per period, microseconds: the kernel accepts no less than 1,000. */
  cpuQuotaMicrosMin: 1_000,
  /** Translation cache of a TCG clone, MiB. The default (a quarter of RAM, at least 32) is most of a clone's memory. */
  tcgCacheMiB: 128,
  /** Compiled policy, bytes (a field of a message); compilation, ms; kept in memory; paths, UTF-16 units of each. */
  policyBytesMax: 32 * KiB, policyCompileMillisMax: 10_000, policiesKept: 256,
  policyPathsMax: 64, policyPathUnits: 256,

  ...imageLimits,

  // ---- host --------------------------------------------------------------------------------------------------------
  /** Console kept of one VM, bytes: enough for a kernel panic. */
  consoleBytesMax: 64 * KiB,
  /** One line of QMP, bytes. */
  qmpLineBytesMax: 1 * MiB,
  /** Device state of a template, bytes. Measured: 60-350 KB. */
  deviceStateBytesMax: 16 * MiB,
  /** Disk space of all templates, bytes: 100 of them (docs/decisions/0011). */
  templatesBytesMax: 16 * GiB,
  /** A template that was asked for so recently is not removed, ms: a clone of it may be under way. */
  templateRestMillis: 60_000,
  /** Free space required beside a template before it is built, bytes. */
  diskFloorBytes: 512 * MiB,
  /** Open files of one VMM process. */
  vmmOpenFiles: 128,
  /** Journal of one run, bytes: about ten lines of a few hundred bytes each, more on retries. */
  journalBytesMax: 1 * MiB,

  /** Clones that may wait at once: each holds a process and tens of MiB. */
  poolTargetMax: 64,
  /** A clone that has waited longer is not used any more, ms: its template and its clock are looked at again then. */
  poolWaitMillisMax: 10 * 60_000,
  /** How long after one was taken the next clone is made, ms: the event has the processors first. */
  poolRefillMillis: 50,
  /** A waiting clone has its function loaded before it is offered, or this long after it began to, ms. */
  loadMillisMax: 10_000,
  /** Clones in a row that could not be made before their shelf is given up. */
  poolFailuresMax: 3,
  /** One evidence record, or an object beside it, bytes. A record has 2 to 3 KB; its bounds allow no more than this. */
  evidenceRecordBytesMax: 1 * MiB,
  /** End of the evidence that is searched for the record of a crashed run, bytes: about 8,000 records. */
  evidenceSearchBytesMax: 64 * MiB,
  /** Waiting for other processes that append evidence, ms. One append takes 1-20 ms. */
  evidenceLockMillisMax: 10_000,
  /** Record of one artefact (kernel, image), bytes. The longest lists about 40 packages. */
  artefactRecordBytesMax: 64 * KiB,
  /** One image manifest, bytes. The longest of set-up's has 12 KB; a distribution of 2,000 packages has 300 KB. */
  imageManifestBytesMax: 1 * MiB,
  /** Nesting of a manifest's JSON: its own format has four levels. */
  imageManifestDepthMax: 8,
  /** Packages that one manifest lists. */
  imagePackagesMax: 4_096,
  /** Any list of a manifest but packages: classes, arguments, types that it serves. */
  imageListMax: 64,
  /** One text of a manifest, UTF-16 units: an argument that is a small script is the longest. */
  imageTextUnits: 4_096,
  /** Read-only file systems that one image is composed of. */
  imageLayersMax: 4,
  /** Signatures of one image: a vendor's, a customer's, this machine's. */
  imageSignaturesMax: 8,
  /** Manifests, and tags, of one machine. */
  imagesMax: 4_096,
  /** Keys whose images this machine runs. */
  imageKeysMax: 256,
  /** One file with a key or a tag, bytes. */
  imageSmallFileBytesMax: 16 * KiB,
  /** Waiting for another process that changes the repository, ms: copying a large image takes most of a minute. */
  imageLockMillisMax: 120_000,
  /** Blobs younger than this are not collected, ms: an import may be about to name them. */
  imageGraceMillis: 3_600_000,
  /** One file system of an image, bytes: more would not be shared by anybody's page cache. */
  imageFileSystemBytesMax: 16 * GiB,
  /** Read at once while a file is copied or hashed, bytes. */
  copyChunkBytes: 1 * MiB,
  /** Runs of dead processes that one start looks at; the next start looks at the rest. */
  reclaimRunsMax: 10_000,
  /** Steps of one run until it is over: 8 without a second attempt, 12 with one. */
  runRoundsMax: 32,
  /** Attempts to get a usable clone. A second one is right only before the event has been delivered. */
  cloneAttemptsMax: 2,

  ...serviceLimits,

  ...outputLimits,
});

export type Limits = typeof limits;

function assertRelation(holds: boolean, relation: string): void {
  if (!holds) throw new Error(`core/limits.ts: ${relation} does not hold`);
}

assertRelation(limits.fieldBytesMax < limits.framePayloadBytesMax, 'fieldBytesMax < framePayloadBytesMax');
assertRelation(limits.framePayloadBytesMax <= limits.streamWindowBytes, 'framePayloadBytesMax <= streamWindowBytes');
assertRelation(limits.streamWindowBytes <= limits.writeQueueBytesMax, 'streamWindowBytes <= writeQueueBytesMax');
assertRelation(limits.envBytesMax < limits.fieldBytesMax, 'envBytesMax < fieldBytesMax');
assertRelation(
  limits.bootMillisMax + limits.warmMillisMax + limits.vmmStartMillisMax < limits.templateWaitMillisMax,
  'bootMillisMax + warmMillisMax + vmmStartMillisMax < templateWaitMillisMax',
);
assertRelation(limits.memoryBytesMin <= limits.memoryBytesDefault, 'memoryBytesMin <= memoryBytesDefault');
assertRelation(limits.memoryBytesDefault <= limits.memoryBytesMax, 'memoryBytesDefault <= memoryBytesMax');
assertRelation(limits.wallMillisDefault <= limits.wallMillisMax, 'wallMillisDefault <= wallMillisMax');
