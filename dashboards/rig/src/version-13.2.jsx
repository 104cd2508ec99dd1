// What is specific to the packages of Grafana 13.2.
import { initPluginTranslations } from '@grafana/i18n';
import { TableNG } from '@grafana/ui/unstable';
import { useEffect, useState } from 'react';
import { MemoryRouter } from 'react-router-dom';

export const annotationPoints = undefined;

export const registeredTransformation = (transformation) => async () => transformation;

/** The page, after the translations are loaded, within the router that the components need. */
export function Page({ children }) {
  const [loaded, setLoaded] = useState(false);
  useEffect(() => {
    const show = () => setLoaded(true);
    initPluginTranslations('grafana').then(show, show);
  }, []);
  return loaded && <MemoryRouter>{children}</MemoryRouter>;
}

export function Table({ data, options, structureRev, ...rest }) {
  return (
    <TableNG
      {...rest}
      data={data}
      structureRev={structureRev}
      resizable
      showTypeIcons={false}
      noHeader={!options.showHeader}
      initialSortBy={options.sortBy}
      cellHeight={options.cellHeight}
      enablePagination={options.enablePagination}
      getActions={() => []}
      transparent={false}
    />
  );
}
