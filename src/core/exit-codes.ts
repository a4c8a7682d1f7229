/** Exit codes, apart from the table of errors that uses them. */

/** Exit codes by meaning: scripts branch on these. */
export const exitCodes = Object.freeze({
  ok: 0,
  /** The function ran and failed: it threw, timed out, ran out of memory or returned something unusable. */
  functionFailed: 1,
  /** The command line, event or function could not be used as given. */
  usage: 2,
  /** The machine or its set-up is not able to run clones; `mayfly doctor` says why. */
  environment: 3,
  /** Mayfly itself failed. */
  internal: 4,
  /** The guest broke the rules of the bridge or of its profile. */
  violation: 5,
  /** Ctrl-C. 128 + signal, as shells do: 143 for SIGTERM, 129 for SIGHUP. */
  interrupted: 130,
});
