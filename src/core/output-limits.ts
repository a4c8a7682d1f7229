/** Limits of what comes out of a clone and of what is kept about it. Part of core/limits.ts. */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const outputLimits = {
  // ---- outputs -----------------------------------------------------------------------------------------------------
  /** A customer's schema of outputs: bytes, nesting, parts, and UTF-16 units of one pattern. */
  schemaBytesMax: 256 * KiB,
  schemaDepthMax: 64,
  schemaPartsMax: 20_000,
  schemaPatternUnitsMax: 1_024,
  /** Words about what is wrong with it, UTF-16 units. */
  schemaMessageUnits: 400,
  /** Start of the thread that applies schemas, compiling one, and applying it to one output, ms; then it is ended. */
  schemaStartMillisMax: 30_000,
  schemaCompileMillisMax: 5_000,
  schemaCheckMillisMax: 5_000,
  /** Heap of that thread, MiB: an output of 6 MiB takes up to 100 as values. */
  schemaHeapMiB: 256,
  /** Secrets that outputs are searched for, and bytes of each: shorter ones are in everything. */
  secretsMax: 64,
  secretBytesMin: 6,
  secretBytesMax: 8 * KiB,
  /** File with secrets, bytes. */
  secretsFileBytesMax: 1 * MiB,
  /** Canaries of one run. */
  canariesMax: 64,
  /** Texts of one output that are searched for secrets a second time, decoded, UTF-16 units. */
  outputTextUnitsMax: 8 * MiB,
  /** Wall time of a customer's validator, ms. */
  validatorMillisDefault: 10_000,

  // ---- evidence ----------------------------------------------------------------------------------------------------
  /** Signed head of the chain, bytes: five short fields. */
  evidenceHeadBytesMax: 4 * KiB,
  /** Records that `mayfly evidence list` shows at most. */
  evidenceListMax: 10_000,

  // ---- forensics ---------------------------------------------------------------------------------------------------
  /** Pages in one piece of a snapshot's memory, and bytes of any piece when unpacked. */
  snapshotPiecePages: 256,
  snapshotPieceBytesMax: 80 * MiB,
  /** All snapshots of one home, bytes, and free space that must stay beside them. */
  snapshotBudgetBytesDefault: 20 * GiB,
  snapshotFloorBytes: 512 * MiB,
  /** What a snapshot may need beside its changed pages: the template's memory, once, and what is written about it. */
  snapshotEstimateBytes: 256 * MiB,
  /** Snapshots of one home. */
  snapshotsMax: 10_000,
  /** Manifest of one, bytes. */
  snapshotManifestBytesMax: 64 * KiB,
  /** End of the function's log that a snapshot keeps, of each stream, bytes. */
  snapshotLogBytes: 256 * KiB,
  /** Files of a function that are kept with a snapshot, bytes; of more, only the digest in the evidence. */
  snapshotCodeBytesMax: 16 * MiB,
  /** Of so many runs `sample` keeps one. */
  snapshotSampleOf: 100,
  /** Stopping a machine, ms: one that does not answer is not waited for. */
  freezeMillisMax: 2_000,
  /** What is read out of a guest's memory: processes, files and mounts, parts of one path, lines of its log. */
  guestProcessesMax: 10_000,
  guestFilesMax: 50_000,
  guestMountsMax: 1_000,
  guestPathPartsMax: 128,
  guestLogLinesMax: 20_000,
  /** Arguments of one process, bytes. */
  guestTextBytesMax: 16 * KiB,
  /** One file of a guest whose content is read, and all of them together, bytes. */
  guestFileBytesMax: 64 * MiB,
  guestContentBytesMax: 512 * MiB,
  /** Reads of one guest's memory: an idle Node clone takes 30,000. */
  guestReadsMax: 400_000,
  /** Changed memory that is searched for indicators and with YARA, bytes. */
  guestSearchBytesMax: 64 * MiB,
  /** Texts in it that may be a name, an address or a hash, UTF-16 units. */
  guestTextUnitsMax: 1 * MiB,
  /** Who has which role, bytes. */
  rolesBytesMax: 64 * KiB,
  /** Guest kernel when unpacked, bytes. Debian 12: 60 MiB. */
  kernelBytesMax: 256 * MiB,
} as const;
