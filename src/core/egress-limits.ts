/** The caps on what a clone does on the network: part of limits.ts, which everybody reads. */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const egressLimits = Object.freeze({
  /** Connections of one clone at a time. The agent has as many places; more than that from a guest is a violation. */
  egressConnectionsMax: 128,
  /** Bytes under way on one connection in one direction; with the above 32 MiB on the host for a clone at worst. */
  egressWindowBytes: 128 * KiB,
  /** Connections and DNS queries that one run may try, each, denied ones included: a guest beyond it is hostile. */
  egressAttemptsMax: 20_000,
  /** Connections that a policy allows in one run: default and most. */
  egressConnectionsTotalMax: 10_000,
  /** New connections per second that a policy allows: default. Under TCG a clone makes some hundreds. */
  egressConnectionsPerSecond: 500,
  /** Bytes of both directions together that a policy allows in one run: default. */
  egressBytesDefault: 1 * GiB,
  /** DNS queries per second that are answered, and the burst that may come at once. */
  dnsQueriesPerSecond: 200,
  /** One DNS message, bytes. */
  dnsMessageBytesMax: 4096,
  /** Different names that one run may resolve. */
  egressNamesMax: 1024,
  /** Rules of one policy. */
  networkRulesMax: 256,
  /** A file of network rules, bytes. */
  networkFileBytesMax: 256 * KiB,
  /** Resolution of one name on the host, ms. */
  resolveMillisMax: 5_000,
  /** Dial of one connection, all its addresses together, ms. */
  dialMillisMax: 10_000,
  /** Addresses of one name that are dialled. */
  dialAddressesMax: 4,
  /** A connection of which one half has ended and nothing moves on the other, ms. */
  halfClosedMillisMax: 60_000,
  /** Bytes that the function wrote before its end are given this long to leave the host, ms. */
  egressLingerMillis: 2_000,
  /** Connections, queries and HTTP requests of one run that are listed in its evidence; totals count all. */
  flowsKept: 256,
  /** A ClientHello with the headers of its records, bytes: with keys for all groups and a long ticket it has 4 KiB. */
  clientHelloBytesMax: 32 * KiB,
  /** A stream that began like the request line of HTTP has this long to go on, ms; then it is something else. */
  sniffMillisMax: 2_000,
  /** Request line and headers of HTTP together, bytes. */
  httpHeadBytesMax: 32 * KiB,
  /** Requests of HTTP/1.1 that a client sends on one connection before their answers have come. */
  httpAheadMax: 32,
  /** Requests at a time on one connection of HTTP/2. */
  httpStreamsMax: 64,
  /** Memory of one session of HTTP/2, MiB. */
  httpSessionMiB: 4,
  /** Path of a request in the evidence, UTF-16 units: without its query, which may hold anything. */
  httpPathUnitsKept: 200,
  /** Methods, and paths, of one rule; UTF-16 units of one path. */
  ruleMethodsMax: 32,
  rulePathsMax: 64,
  rulePathUnitsMax: 1_024,

  // ---- servers in clones -------------------------------------------------------------------------------------------
  /** Ports that a function may serve on: those below need privileges, those above are the kernel's to give away. */
  serverPortMin: 1024,
  serverPortMax: 32_767,
  /** Delivery of an event until its server listens, ms, at most; half of the wall time where that is less. */
  serverReadyMillisMax: 20_000,
  /** Path and query of a request, UTF-16 units. */
  httpPathUnitsMax: 8 * KiB,
  /** Head of a request or an answer, bytes: what servers accept by default. */
  httpHeaderBytesMax: 16 * KiB,
  /** Answers of the kind "100 Continue" before the real one. */
  httpInformationMax: 16,
  /** Pieces of one answer's body: each costs an object, also where it has a single byte. */
  httpChunksMax: 100_000,
});
