/** Waiting for a slow reader, without leaving listeners behind on streams that live for as long as an image. */

interface Draining {
  on(event: 'drain' | 'close', listener: () => void): unknown;
  off(event: 'drain' | 'close', listener: () => void): unknown;
}

/** Resolves when the stream takes more, and also when it never will: a closed one says why elsewhere. */
export async function drained(stream: Draining): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      stream.off('drain', done);
      stream.off('close', done);
      resolve();
    };
    stream.on('drain', done);
    stream.on('close', done);
  });
}
