/** The part of limits.ts that is about images of others, built images and registries; nobody else imports it. */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const imageLimits = Object.freeze({
  // ---- images of others --------------------------------------------------------------------------------------------
  /** Index, manifest or configuration of an OCI image, bytes: what registries accept as well. */
  ociDocumentBytesMax: 4 * MiB,
  /** Entries of an index, an archive's manifest or a list in a configuration. */
  ociListMax: 1024,
  /** Indexes that lead to one another before there is a manifest. */
  ociIndexDepthMax: 3,
  /** Layers: the most that overlayfs, and so any engine, can stack. */
  ociLayersMax: 128,
  /**
   * Files, folders and links in all layers together. A desktop distribution has about 300,000; each costs 300 bytes.
   */
  ociEntriesMax: 500_000,
  /** One path in an image, bytes. */
  ociPathBytesMax: 2048,
  /** One name in a path, bytes: what every file system of Linux can hold. */
  ociNameBytesMax: 255,
  /** All paths and link targets of all layers, bytes: they are in memory while an image is imported. */
  ociPathsBytesMax: 96 * MiB,
  /** All layers decompressed, bytes. */
  ociBytesMax: 16 * GiB,
  /** One layer compressed, bytes. */
  ociLayerBytesMax: 8 * GiB,
  /** Bytes out for each byte in: text shrinks to a tenth, a bomb to a thousandth. */
  ociRatioMax: 200,
  /** Decompressed bytes of a layer before its ratio counts: small layers of zeros are harmless. */
  ociRatioFromBytes: 64 * MiB,
  /** Bytes of a tar archive in which no entry begins and none goes on: headers that have no end. */
  ociTarSilenceBytesMax: 8 * MiB,
  /** Memory of the program that packs an image, MiB. */
  ociPackMiB: 256,
  /** Files in a docker-archive beside the layers' own. */
  ociArchiveFilesMax: 4096,

  // ---- images that are built ---------------------------------------------------------------------------------------
  /** A Mayflyfile, bytes, and instructions in it. */
  buildFileBytesMax: 64 * KiB,
  buildInstructionsMax: 256,

  // ---- registries --------------------------------------------------------------------------------------------------
  /** From a request until its headers have come, ms: registries that build an answer take a few seconds. */
  registryAnswerMillisMax: 30_000,
  /** Silence within an answer, ms. */
  registryIdleMillisMax: 30_000,
  /** One answer from its first to its last byte, ms: 8 GiB at 5 MB/s. */
  registryBlobMillisMax: 30 * 60_000,
  /** Redirects of one request: registries have one, to where their blobs are. */
  registryRedirectsMax: 5,
  /** Tries of one request that failed in a way that may pass, and the wait after the first one, ms; it doubles. */
  registryTriesMax: 4,
  registryBackoffMillis: 1_000,
  /** Answer of a token server, bytes. A token with many claims has 4 KB. */
  registryTokenBytesMax: 64 * KiB,
  /** Docker's configuration, bytes. */
  registryConfigBytesMax: 256 * KiB,
});
