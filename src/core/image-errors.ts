/** The part of errors.ts that is about images of others, built images and registries; nobody else imports it. */
import type { Meaning } from './errors.ts';
import { exitCodes } from './exit-codes.ts';

export const imageErrors = Object.freeze({
  E_IMAGE_SOURCE: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'There is no image where one was said to be',
    remedy: 'Name it as `oci:DIR[:TAG]`, `docker-archive:FILE[:TAG]` or `docker://HOST/NAME:TAG`.',
  },
  E_BUILD_FILE: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'A line of a Mayflyfile cannot be carried out',
    remedy: 'Correct the line that the message names; docs/FORMATS.md has what a Mayflyfile may say.',
  },
  E_IMAGE_FETCH: {
    stage: 'setup', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'A registry does not answer, breaks off, or leads elsewhere',
    remedy: 'Try again later; when it stays so, copy the image with `skopeo copy` and import `oci:DIR:TAG`.',
  },
  E_IMAGE_AUTH: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'A registry wants other credentials than it was given',
    remedy: 'Log in with docker, podman or skopeo, or name the file with the credentials: `--auth-file FILE`.',
  },
  E_IMAGE_PLATFORM: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The image is not for Linux on x86-64',
    remedy: 'Build it for linux/amd64, or name an image that has this platform.',
  },
  E_IMAGE_CORRUPT: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The image is damaged: a digest, a size or a format does not hold',
    remedy: 'Copy or build the image again; nothing of it was kept.',
  },
  E_IMAGE_UNSAFE: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The image contains something that no base image may contain',
    remedy: 'Build it without the named file: devices, pipes, paths that leave the image or run through a link.',
  },
  E_IMAGE_TOO_LARGE: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The image is over a limit: layers, files, bytes, or bytes for each compressed byte',
    remedy: 'Make it smaller; `src/core/limits.ts` has the limits and their reasons.',
  },
  E_IMAGE_UNSUPPORTED: {
    stage: 'setup', blame: 'caller', retryable: false, exit: exitCodes.usage,
    title: 'The image or its description uses something that Mayfly does not have',
    remedy: 'The message names it; build the image with another tool and import the result.',
  },
  E_INTEL_CONFIG: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.usage,
    title: 'The configuration of the threat feeds is not valid',
    remedy: 'Correct the named line of MAYFLY_HOME/intel/feeds.yaml (docs/FORMATS.md).',
  },
  E_INTEL_FETCH: {
    stage: 'setup', blame: 'operator', retryable: true, exit: exitCodes.environment,
    title: 'A threat feed could not be fetched',
    remedy: 'The last good copy stays in use; check the address of the feed and the network.',
  },
  E_INTEL_AUTH: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A threat feed refused the credentials, or there are none',
    remedy: 'Renew the token and export it in the environment variable that feeds.yaml names.',
  },
  E_INTEL_FORMAT: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'What a threat feed sent is not in its format',
    remedy: 'The last good copy stays in use; check `format` in feeds.yaml.',
  },
  E_INTEL_TOO_LARGE: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A threat feed is larger than the limit',
    remedy: 'Subscribe to a smaller list, or to the same one in a line format, which is streamed.',
  },
  E_INTEL_QUARANTINED: {
    stage: 'setup', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'A threat feed was quarantined: it may be poisoned',
    remedy: 'Look at the findings; `mayfly intel sync FEED --accept` takes the copy without the rows found.',
  },
  E_INTEL_YARA: {
    stage: 'profile', blame: 'operator', retryable: false, exit: exitCodes.environment,
    title: 'YARA rules could not be applied',
    remedy: 'Install the package yara, and check the rules in MAYFLY_HOME/intel/yara.',
  },
} as const satisfies Readonly<Record<string, Meaning>>);
