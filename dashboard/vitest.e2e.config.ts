// The dashboard in a real browser against a real server, one page after another.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['e2e/**/*.test.ts'],
    fileParallelism: false,
    // Longer than anything in a test waits for, so that it says itself what it waited for.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    bail: 1,
  },
});
