// The build: few files with fixed names, so that the server can embed them by name. Each reference
// in index.html carries the hash of what it refers to; the server lets browsers keep those for ever.
import { createHash } from 'node:crypto';
import { defineConfig, type Plugin } from 'vite';

const hashed = (): Plugin => ({
  name: 'stonechat-hashed-references',
  enforce: 'post',
  generateBundle(_options, bundle) {
    const page = bundle['index.html'];
    if (page?.type !== 'asset') throw new Error('there is no index.html in the build');
    let html = String(page.source);
    for (const [name, file] of Object.entries(bundle)) {
      if (name === 'index.html') continue;
      const content = file.type === 'chunk' ? file.code : file.source;
      const hash = createHash('sha256').update(content).digest('hex').slice(0, 16);
      html = html.replaceAll(`./${name}"`, `./${name}?v=${hash}"`);
    }
    page.source = html;
  },
});

export default defineConfig({
  base: './',
  plugins: [hashed()],
  build: {
    outDir: '../crates/gateway/assets/dashboard',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: {
        codeSplitting: false,
        entryFileNames: 'app.js',
        assetFileNames: (asset) => (asset.names[0]?.endsWith('.css') ? 'app.css' : '[name][extname]'),
      },
    },
  },
  // While working on it: `npx vite` beside a running server.
  server: {
    host: '127.0.0.1',
    proxy: { '/admin': process.env.STONECHAT_ADMIN ?? 'http://127.0.0.1:8081' },
  },
});
