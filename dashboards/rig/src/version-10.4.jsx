// What is specific to the packages of Grafana 10.4.
import { Table as ReactTable } from '@grafana/ui';
import { MemoryRouter } from 'react-router-dom';

/** Number of points that Grafana requested for an annotation until version 11.4. */
export const annotationPoints = 100;

export const registeredTransformation = (transformation) => transformation;

export const Page = ({ children }) => <MemoryRouter>{children}</MemoryRouter>;

export function Table({ data, options, ...rest }) {
  return (
    <ReactTable
      {...rest}
      data={data}
      resizable
      showTypeIcons={false}
      noHeader={!options.showHeader}
      initialSortBy={options.sortBy}
      cellHeight={options.cellHeight}
      enablePagination={options.footer?.enablePagination}
    />
  );
}
