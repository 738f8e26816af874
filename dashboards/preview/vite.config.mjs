import react from '@vitejs/plugin-react';

export default {
  plugins: [react()],
  define: {'process.env': {NODE_ENV: 'production'}},
  build: {target: 'esnext', minify: false, chunkSizeWarningLimit: 1e5},
};
