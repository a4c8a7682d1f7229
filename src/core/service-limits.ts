/** Caps of the service: functions, tenants, requests, queue, store, pool. Part of core/limits.ts. */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const serviceLimits = {
  // ---- functions and tenants ---------------------------------------------------------------------------------------
  /** Names of functions and tenants, characters: they are file names and parts of addresses. */
  serviceNameMax: 63,
  /** One record of a function's versions, a tenant or a key, bytes. */
  serviceRecordBytesMax: 256 * KiB,
  /** Listing of one version: 20,000 entries of a path and a digest. */
  versionRecordBytesMax: 32 * MiB,
  /** Versions of one function that can be rolled back to; older ones are forgotten. */
  functionVersionsKept: 20,
  /** Functions of one tenant, tenants of one home, keys of one home: more is a mistake or an attack. */
  functionsMax: 1_000,
  tenantsMax: 1_000,
  apiKeysMax: 10_000,
  /** Versions that the service has in memory with their code. */
  versionsLoadedMax: 64,

  // ---- requests ----------------------------------------------------------------------------------------------------
  /** All headers of a request, bytes. */
  requestHeaderBytesMax: 16 * KiB,
  /** Headers, and the whole request, have arrived within this time, ms (a client that sends a byte a second). */
  requestMillisMax: 10_000,
  /** Slow requests are looked for this often, ms. */
  connectionLookMillis: 500,
  /** An idle connection is closed after this time, ms. */
  keepAliveMillisMax: 30_000,
  /** Connections at a time. */
  connectionsMax: 1_024,
  /** CloudEvents attributes in headers of one event. */
  eventAttributesMax: 64,
  /** Events of one batch. */
  batchEventsMax: 100,
  /** Idempotency key, characters. */
  idempotencyKeyUnitsMax: 255,
  /** A caller waits for its result this long, ms; then it is told where the result will be. */
  answerMillisMax: 300_000,
  /** Clients that wait for results at a time, as streams or as answers. */
  waitersMax: 4_096,
  /** A stream of results says something this often, ms, so that nobody on the way closes it. */
  streamBeatMillis: 15_000,
  /** Failed authentications per second of one address before it is answered 429. */
  authFailuresPerSecond: 5,
  /** Addresses whose failures are counted; beyond it the oldest is forgotten. */
  authAddressesMax: 4_096,
  /** Series of one metric: tenants, functions, codes and buckets multiply. */
  metricSeriesMax: 5_000,
  /** Dead letters or events of one answer. */
  eventsListedMax: 200,

  // ---- queue -------------------------------------------------------------------------------------------------------
  /** Events that wait: default of a service, of one tenant, and the most that can be configured. */
  queueDefault: 1_000,
  queueOfTenantDefault: 500,
  queueMax: 100_000,
  /** Events that run at a time: the most that can be configured. */
  concurrencyMax: 256,
  /** Events per second of one tenant: default. */
  tenantEventsPerSecondDefault: 100,
  /** Attempts of one event: default, and the most that a manifest may ask for. */
  retryAttemptsDefault: 3,
  retryAttemptsMax: 10,
  /** Pause before the second attempt: default and most, ms; it doubles with each. */
  retryBackoffMillisDefault: 1_000,
  retryBackoffMillisMax: 60_000,
  /** What other processes changed in the store is looked for this often, ms. */
  storePollMillis: 1_000,
  /** Runs that are under way have this long to end when the service stops, ms: default. */
  drainMillisDefault: 30_000,

  // ---- store -------------------------------------------------------------------------------------------------------
  /** Events, results and dead letters together, bytes: default. A tenth of it is kept for results. */
  storeBytesDefault: 4 * GiB,
  storeBytesMin: 8 * MiB,
  /** Free space of the file system below which no event is accepted, bytes: runs and results need it. */
  serviceDiskFloorBytes: 128 * MiB,
  /** Changes of one transaction. */
  storeBatchMax: 256,
  /** Changes that wait for the writer. */
  storePendingMax: 20_000,
  /** Results, and dead letters, are kept this long: default, ms. */
  resultMillisDefault: 24 * 3_600_000,
  deadLetterMillisDefault: 7 * 24 * 3_600_000,
  /** Rows that one sweep of what has expired removes; the next one goes on. */
  sweepRowsMax: 1_000,
  /** Between two sweeps, ms. */
  sweepMillis: 30_000,

  // ---- pool --------------------------------------------------------------------------------------------------------
  /** Clones that one function has waiting, at most. */
  warmMax: 32,
  /** A waiting clone's own memory, bytes: 48 MiB were measured. */
  warmBytesEach: 64 * MiB,
  /** Memory of the host that all waiting clones may have: a share of it, percent. */
  warmShareOfMemoryPercent: 25,
  /** A function without events for this long has no clone waiting any more, ms. */
  warmIdleMillis: 10 * 60_000,
} as const;
