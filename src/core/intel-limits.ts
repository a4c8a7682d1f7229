/** Caps of threat intelligence and of rules, a part of `limits` (limits.ts), which alone is used. */

const KiB = 1024;
const MiB = 1024 * KiB;

export const intelLimits = {
  // ---- threat intelligence -----------------------------------------------------------------------------------------
  /** Configuration of the feeds, bytes. */
  intelConfigBytesMax: 256 * KiB,
  /** Feeds of one home, and with that the sources that an indicator can have. */
  intelFeedsMax: 64,
  /** One download of a line format, bytes after decompression: it is streamed, never held. */
  intelFeedBytesMax: 512 * MiB,
  /** One JSON document (STIX bundle, TAXII page, MISP event), bytes: it is held and parsed whole. */
  intelDocumentBytesMax: 64 * MiB,
  /** Nesting of such a document. */
  intelDocumentDepthMax: 64,
  /** Indicators of one feed; the rest is dropped and said. */
  intelIndicatorsPerFeedMax: 1_000_000,
  /** Indicators in the index, about 70 bytes each and their values; the rest is dropped and said. */
  intelIndicatorsMax: 2_000_000,
  /** Entries of one value in the index: more sources than this say no more. */
  intelEntriesPerValueMax: 64,
  /** Different lists of labels in the index; further ones are left out of the reasons. */
  intelLabelSetsMax: 65_535,
  /** Labels of one indicator, and UTF-16 units of each. */
  intelLabelsMax: 16,
  intelLabelUnits: 80,
  /** One line of a feed, UTF-16 units. */
  intelLineUnitsMax: 8192,
  /** Pages of one TAXII pull, and documents of one MISP folder. */
  intelPagesMax: 1000,
  /** One request to a feed, ms, from connecting to the last byte. */
  intelFetchMillisMax: 120_000,
  /** Tries of one request, and the longest wait between two, ms. */
  intelFetchTriesMax: 4,
  intelBackoffMillisMax: 30_000,
  /** Redirects that one request follows. */
  intelRedirectsMax: 3,
  /** Rows from which an index is built in a thread of its own: fewer take less time than starting one. */
  intelThreadRowsMin: 5_000,
  /** Building an index, ms: 2,000,000 rows take about 8 s on an idle machine. */
  intelBuildMillisMax: 120_000,
  /** Heap of that thread, MiB: what it builds is outside of it, a block of lines at a time inside. */
  intelBuildHeapMiB: 256,
  /** Age of the last good copy after which a feed counts as stale, seconds: default. */
  intelMaxAgeSecondsDefault: 172_800,
  /** Time between two pulls of a feed, seconds: least, and default. */
  intelEverySecondsMin: 60,
  intelEverySecondsDefault: 3_600,
  /** First wait after a failed pull, seconds, and the longest for a feed that is pulled more often than that. */
  intelRetrySecondsMin: 60,
  intelRetrySecondsMax: 21_600,
  /** Longest sleep of `intel sync --watch`, ms: a changed feeds.yaml is seen no later. */
  intelWatchMillisMax: 60_000,
  /** A signature's file, bytes. */
  intelSignatureBytesMax: 4 * KiB,
  /** Findings of one feed that are kept in its state. */
  intelFindingsKept: 20,
  /** State of one feed on disk, bytes. */
  intelStateBytesMax: 64 * KiB,
  /** Waiting for another process that pulls, ms. */
  intelLockMillisMax: 10_000,
  /** Values of one event that are visited, and UTF-16 units of text that are searched. */
  observeNodesMax: 200_000,
  observeUnitsMax: 8 * MiB,
  /** Nesting of an event that is followed. Beyond it the rest is not seen, and that is scored. */
  observeDepthMax: 256,
  /** Values that are picked out of an event's texts, the same one each time that it occurs. */
  observeMatchesMax: 50_000,
  /** Observables of one event, and attachments that are decoded, members of archives among them. */
  observablesMax: 5000,
  attachmentsMax: 256,
  /** All decoded attachments and members together, bytes. */
  attachmentBytesMax: 16 * MiB,
  /** Layers of encoding (a zip in base64 in JSON in base64) that are opened. */
  attachmentLayersMax: 3,
  /** Start of an attachment that its type is recognised by, bytes. */
  sniffBytes: 64 * KiB,
  /** Members of an archive that are listed. */
  archiveMembersMax: 2000,
  /** Matches and reasons of one assessment that are listed; all count. */
  matchesListedMax: 100,
  /** Lines that explain a score in the reasons of a profile; they are in every evidence record. */
  threatLinesMax: 40,
  /** Destinations in an event that are denied by name in its profile; the index denies the others all the same. */
  threatDeniedMax: 64,
  /** Rule files of YARA, one scan in seconds, and its output in bytes. */
  yaraFilesMax: 64,
  yaraSecondsMax: 10,
  yaraOutputBytesMax: 256 * KiB,

  // ---- rules -------------------------------------------------------------------------------------------------------
  /** Files of one folder of rules, and bytes of each. */
  ruleFilesMax: 64,
  ruleFileBytesMax: 256 * KiB,
  /** Lines and opening brackets of one file: the parser of YAML needs up to 30 µs for each. */
  ruleFileMarksMax: 20_000,
  /** Rules of one set. All of them are evaluated for each event: 200 took 0.04 to 0.5 ms. */
  rulesMax: 1_000,
  /** Text of one expression, UTF-16 units, parts of its tree and their nesting: parsed in 20 ms at worst. */
  ruleExpressionUnitsMax: 2_048,
  ruleNodesMax: 1_000,
  /** Opening brackets of one expression: the parser's time grows with the cube of their nesting. */
  ruleBracketsMax: 128,
  ruleDepthMax: 64,
  /** Loops within loops. Two suffice to compare two lists. */
  ruleLoopDepthMax: 2,
  /** One regular expression, UTF-16 units, and the text that it may read. RE2 needs up to 0.2 µs for a unit. */
  rulePatternUnitsMax: 256,
  ruleMatchedUnitsMax: 64 * KiB,
  /** Steps of one rule, and of all rules, on one event: a step takes 10-100 ns, so 5 ms and 50 ms at worst. */
  ruleStepsMax: 50_000,
  ruleStepsOfEventMax: 500_000,
  /** Events of one `rules diff`: files of a folder, and bytes of a .jsonl file. */
  rulesDiffEventsMax: 10_000,
  rulesDiffBytesMax: 256 * MiB,
  /** Problems of one rule set that are reported. */
  ruleProblemsMax: 50,
  /** Text of a rule's name, description or rejection, UTF-16 units. */
  ruleTextUnitsMax: 500,
};
