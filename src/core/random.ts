/** Randomness as a dependency: the host's CSPRNG in production, a printed seed in simulation. */

export interface Random {
  /** `size` unpredictable bytes. */
  bytes(size: number): Buffer;
}
